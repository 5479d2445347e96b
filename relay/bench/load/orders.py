"""What a benchmark's processes say to each other: one JSON object a line, on standard input and output.

Lines are read by hand, because the processes wait with epoll or select for the next one, and what a buffered reader
has already taken they would not see. What is here taken too much waits in `_rest`, where `is_told` looks first; who
waits with epoll instead is never sent a second line before it has answered the first.
"""

import os
import select
import sys
from typing import Any

import msgspec

_rest = bytearray()


class Gone(Exception):  # noqa: N818  # nobody's error: whoever started this process has left
    """Standard input has ended."""


def read_line() -> bytes:
    """Read one line from standard input.

    Raises:
        Gone: if there is none.
    """
    while b"\n" not in _rest:
        chunk = os.read(sys.stdin.fileno(), 65_536)
        if not chunk:
            raise Gone
        _rest.extend(chunk)
    line, _, after = bytes(_rest).partition(b"\n")
    _rest[:] = after
    return line


def read_order() -> dict[str, Any]:
    """Read one line as an object.

    Raises:
        Gone: if there is none.
    """
    order: dict[str, Any] = msgspec.json.decode(read_line())
    return order


def is_told(within_s: float = 0.0) -> bool:
    """Tell whether there is a line to read, waiting so long for it."""
    return b"\n" in _rest or bool(select.select([sys.stdin], [], [], max(0.0, within_s))[0])


def say(**message: object) -> None:
    """Write one object as a line, at once."""
    os.write(sys.stdout.fileno(), msgspec.json.encode(message) + b"\n")
