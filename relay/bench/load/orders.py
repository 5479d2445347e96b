"""How a program gets its order and answers: one JSON object a line, on standard input and output.

A program gets one order. It answers with lines of progress, then with a result, or with a sentence in `error`. The end
of standard input ends it.

Lines are read by hand: the programs wait with epoll or select for the next one, and would not see what a buffered
reader has already taken. What was read too much waits in `_rest`, where `has_line` looks first. A program that waits
with epoll never gets a second line before it has answered the first.
"""

import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from relay.core.errors import RelayError

OrderType = TypeVar("OrderType")

TELL_EVERY_S = 0.25
MAX_PAUSE_S = 0.1
"""The longest sleep before the next look for an order."""

_rest = bytearray()


class InputEnded(Exception):  # noqa: N818  # no error: the command has closed the pipe
    """Standard input has ended."""


def carry_out(kind: type[OrderType], work: Callable[[OrderType], None]) -> None:
    """Read one order and do its work; an error of ours becomes a line. This is the whole `main` of a program."""
    try:
        work(msgspec.json.decode(read_line(), type=kind))
    except RelayError as error:
        say(error=str(error))
    except (InputEnded, BrokenPipeError):
        sys.exit(0)


def read_line() -> bytes:
    """Read one line from standard input. Raises InputEnded if there is none."""
    while b"\n" not in _rest:
        chunk = os.read(sys.stdin.fileno(), 65_536)
        if not chunk:
            raise InputEnded
        _rest.extend(chunk)
    line, _, after = bytes(_rest).partition(b"\n")
    _rest[:] = after
    return line


def read_order() -> dict[str, Any]:
    """Read one line as an object; raises what `read_line` raises."""
    order: dict[str, Any] = msgspec.json.decode(read_line())
    return order


def wait_for(key: str) -> None:
    """Read orders until one has this key. A stop may have crossed with the last tick."""
    while key not in read_order():
        pass


def has_line(within_s: float = 0.0) -> bool:
    """Tell whether there is a line to read, waiting at most so long for it."""
    return b"\n" in _rest or bool(select.select([sys.stdin], [], [], max(0.0, within_s))[0])


def say(**message: object) -> None:
    """Write one object as a line, at once."""
    os.write(sys.stdout.fileno(), msgspec.json.encode(message) + b"\n")


class Progress:
    """Reports the progress of a program, a few times a second, as lines with `key`."""

    def __init__(self, key: str = "progress") -> None:
        self._key = key
        self._told_at = time.monotonic()

    def tell(self, done: int) -> None:
        """Say how much is done, if the last line is old enough."""
        if (now := time.monotonic()) - self._told_at > TELL_EVERY_S:
            self._told_at = now
            say(**{self._key: done})

    def goes_on(self, done: int, wait_s: float = 0.0) -> bool:
        """Say how much is done, and wait for an order, at most `wait_s`; False: the order to stop has come."""
        if has_line(min(wait_s, MAX_PAUSE_S)):
            read_order()
            return False
        self.tell(done)
        return True
