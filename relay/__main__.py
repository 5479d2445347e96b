"""`relay`, also as `python -m relay`."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        # imported here, so that Ctrl-C during the import also ends without a traceback
        from relay.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
