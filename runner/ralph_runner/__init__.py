"""The detached process that owns one loop. Started as `python -P -m ralph_runner <loop folder>`."""
