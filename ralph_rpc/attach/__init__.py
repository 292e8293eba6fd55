"""`ralph-rpc attach`: one loop on a terminal, and an input line that sends it messages and commands.

`blocks` folds items into what is shown, `window` holds a part of the log as such blocks, `streamed_markdown` cuts
text that streams into pieces that need no second rendering, `render` makes lines of a block, `stream` shows
the lines, `headline` makes the line above them, `app` puts everything together. Only files are read, and only
commands are written.
"""

OFFSET = "events.offset"
"""In the loop's folder: how far in the log the viewer that looked last has shown it."""
