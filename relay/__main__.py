"""`relay`, also as `python -m relay`."""

import gc
import os
import sys


def main() -> None:
    """Run the command line, and end the process."""
    try:
        try:
            # imported here, so that Ctrl-C during the import also ends without a traceback
            gc.disable()  # modules have no cycles to collect
            from relay.cli import main as run

            gc.freeze()
            gc.enable()
            run()
        except (KeyboardInterrupt, RuntimeError) as error:
            if isinstance(error, RuntimeError) and str(error) != _INTERRUPTED:
                raise
            sys.exit(130)
    except SystemExit as end:
        if sys.argv[1:2] == ["audit"] and isinstance(end.code, int | None):
            # DuckDB takes 40 ms to free what the kernel frees anyway. A thread that still opens it may wait for a
            # module for ever, after Ctrl-C during the import of that module.
            sys.stderr.flush()
            os._exit(end.code or 0)
        raise


_INTERRUPTED = "Query interrupted"
"""What DuckDB raises after Ctrl-C, as a `RuntimeError`."""

if __name__ == "__main__":
    main()
