"""`relay`, also as `python -m relay`."""

import gc
import os
import sys

_INTERRUPTED = "Query interrupted"
"""What DuckDB raises after Ctrl-C, as a `RuntimeError`."""


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
        _end(130)
    except RuntimeError as error:
        if str(error) != _INTERRUPTED:
            raise
        _end(130)
    except SystemExit as end:
        _end(end.code)


def _end(code: str | int | None) -> None:
    """End the process. A question to the audit log ends at once.

    DuckDB takes 40 ms to free what the kernel frees anyway. After Ctrl-C during the import of a module, the thread that
    opens the database may wait for that module without an end.
    """
    if sys.argv[1:2] == ["audit"] and isinstance(code, int | None):
        sys.stderr.flush()
        os._exit(code or 0)
    sys.exit(code)


if __name__ == "__main__":
    main()
