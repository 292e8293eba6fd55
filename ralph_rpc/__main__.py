"""`python -m ralph_rpc` is the same program as `ralph-rpc`."""

from ralph_rpc.cli.main import main

if __name__ == "__main__":
    main()
