"""The version of the files' shapes, which every JSON file carries as `schemaVersion`; a file without one has version 1.

A key that is added and may be missing needs no new version: readers ignore keys that they don't know. A key that
changes its meaning or goes away does. Then the number here is raised, and older programs leave such files alone.
"""

from typing import Literal

SchemaVersion = Literal[1]
SCHEMA_VERSION: SchemaVersion = 1
