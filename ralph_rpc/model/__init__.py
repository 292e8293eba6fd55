"""The shapes of our files and messages, one definition each.

Every shape is a `TypedDict`: it costs the everyday commands nothing to import, mypy checks the code that
writes it, and pydantic (`model/schemas.py`, imported only by validators and by `ralph-rpc schema`) turns the
same definition into a validator and a JSON Schema. Keys are camelCase, times are ISO 8601 UTC with
milliseconds, durations are milliseconds and end in `Ms`, money is US dollars. Writers write all keys; readers
ignore keys that they don't know and use `.get` for keys that an older version may not have written.
"""
