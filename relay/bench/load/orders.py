"""How a program gets its order and answers: one JSON object a line, on standard input and output.

A program gets one order. It answers with lines of progress, then with a result, or with a sentence in `error`. The end
of standard input ends it. It never gets a second line before it has answered the first, except an order to stop: so
`select` sees each line that has not been read.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import uvloop

from relay.core.errors import RelayError

OrderType = TypeVar("OrderType")

TELL_EVERY_S = 0.25


class InputEnded(Exception):  # noqa: N818  # no error: the command has closed the pipe
    """Standard input has ended."""


def carry_out(kind: type[OrderType], work: Callable[[OrderType], Coroutine[Any, Any, object]]) -> None:
    """Read one order and do its work, the whole `main` of a program. Its result or an error of ours becomes a line."""
    try:
        result = uvloop.run(work(msgspec.json.decode(_read_line(), type=kind)))
        if result is not None:
            say(result=result)
    except RelayError as error:
        say(error=str(error))
    except (InputEnded, BrokenPipeError):
        sys.exit(0)


def _read_line() -> bytes:
    if line := sys.stdin.buffer.readline():
        return line
    raise InputEnded


def read_order() -> dict[str, Any]:
    """Read one line as an object. Raises InputEnded if there is none."""
    order: dict[str, Any] = msgspec.json.decode(_read_line())
    return order


def wait_for_end() -> None:
    """Wait for the end of standard input; raises InputEnded. An order to stop may have crossed with the last tick."""
    while read_order():
        pass


def say(**message: object) -> None:
    """Write one object as a line, at once."""
    os.write(sys.stdout.fileno(), msgspec.json.encode(message) + b"\n")


class Published:
    """Reports how much a program has published, a few times a second."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def tell(self, done: int) -> None:
        """Say how much is done, if the last line is old enough."""
        if (now := time.monotonic()) - self._told_at > TELL_EVERY_S:
            self._told_at = now
            say(published=done)

    def goes_on(self, done: int) -> bool:
        """Say how much is done, and look for an order; False: the order to stop has come."""
        if select.select([sys.stdin], [], [], 0.0)[0]:
            read_order()
            return False
        self.tell(done)
        return True
