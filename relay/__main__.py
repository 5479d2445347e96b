"""`relay`, also as `python -m relay`."""

import gc
import os
import sys


def main() -> None:
    """Run the command line, and end the process."""
    try:
        # imported here, so that Ctrl-C during the import also ends without a traceback
        gc.disable()  # modules have no cycles to collect
        from relay.cli import main as run

        gc.freeze()
        gc.enable()
        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as end:
        if sys.argv[1:2] == ["audit"] and "_duckdb" in sys.modules and isinstance(end.code, int | None):
            sys.stderr.flush()
            os._exit(end.code or 0)  # DuckDB takes 40 ms to free what the kernel frees anyway
        raise


if __name__ == "__main__":
    main()
