"""`ralph-rpc report`: what a loop did, gathered from its files and rendered as HTML, Markdown or JSON.

    gather (reads files) -> facts (plain values; tally: those of the log) -> html, markdown, as_json

Only `gather` touches files, and it only reads them: the report of a running loop shows what has happened so far.
"""
