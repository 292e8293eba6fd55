"""`ralph-rpc report`: what a loop did, gathered from its files and rendered as HTML, Markdown or JSON.

    gather (reads files) -> facts (plain values; fold: those of the log) -> html, markdown, as_json

Only `gather` touches files, and it only reads them: a report of a living loop is one of what has happened so far.
"""
