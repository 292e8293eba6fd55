"""`python -m ralph_rpc` is the same program as `ralph-rpc`: nothing of the working folder stands in for one of its modules."""

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    with suppress(OSError):  # the working folder is gone
        if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109 - before anything is loaded
            del sys.path[0]

    from ralph_rpc.cli.main import main

    main()
