"""How commands print text that others wrote, and how they end."""

import os
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import typer

from relay.core.errors import ConfigurationError, MalformedError, RelayError

if TYPE_CHECKING:
    from relay.client import PublishError


def printable(text: str) -> str:
    """Return `text` with each character replaced that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def say_wait(error: "PublishError", wait_s: float) -> None:
    """Write to standard error why a publisher waits: it may do so for a minute before it gives up."""
    if error.retryable:
        sys.stderr.write(printable(f"{error.message} Trying again in {wait_s:.1f} s.") + "\n")


def run_to_exit(main: Coroutine[Any, Any, int]) -> None:
    """Run a command and exit with the code that it returns. An error is printed as one sentence.

    Exit codes: 2 for an error that the caller must correct, 1 for other errors. As shells show them, 130 for Ctrl-C,
    and 141 if the reader of standard output has closed it.
    """
    # imported here, because most commands have no event loop
    import asyncio
    import logging

    # without a handler Python would print the client's warnings, before the error that ends the command
    logging.getLogger("relay.client").addHandler(logging.NullHandler())
    try:
        code = asyncio.run(main)
    except (ConfigurationError, MalformedError) as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    except RelayError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # without this, the interpreter's last flush complains about the closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    raise typer.Exit(code)
