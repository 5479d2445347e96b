"""`relay`, also as `python -m relay`."""

import gc
import sys


def main() -> None:
    """Run the command line."""
    try:
        # imported here, so that Ctrl-C during the import also ends without a traceback
        gc.disable()  # modules have no cycles to collect
        from relay.cli import main as run

        gc.enable()
        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
