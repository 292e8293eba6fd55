"""The decisions of a ticket loop: which tickets run, what their workers make of them, and how it gets merged.

Pure, as the rest of the core. A worker is a `core.state.Loop` with a duty: one pi, and its attempts at one ticket.
"""
