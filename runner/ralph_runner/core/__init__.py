"""Decides. No clock, no files, no processes, no git: what happens comes in as inputs, what to do goes out as effects."""
