"""`relay`, also as `python -m relay`.

The commands are imported inside `main`, so that Ctrl-C while they load ends as quietly as later.
"""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from relay.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
