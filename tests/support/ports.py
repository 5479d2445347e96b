"""Ports that a test may name in settings before anything listens on them."""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

LOWEST, HIGHEST = 10_100, 32_000
"""Above 10080, the last port that browsers refuse to ask (Fetch §2.9, port blocking), and below those that the
kernel gives to clients. On a port of theirs that nobody listens on yet, a client of the same machine may be
connected with itself, and keep the server from binding it."""

PARTS = 60
"""Parts of that range. A process has one for itself, so two that look at the same time don't find the same port: nor do
two runs of the tests on one machine."""


def free_ports(count: int) -> list[int]:
    """Return ports that are free now. The settings must name them, because tokens say where they are for."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in _own_ports(os.getpid()):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
            if len(found) == count:
                break
    return found


@cache
def _own_ports(_process: int) -> Iterator[int]:
    """Return the ports of this process, in turn: each is given again as late as possible.

    A backend may not listen on its port all the time.
    """
    part = _own_part()
    return cycle(range(LOWEST + part, HIGHEST, PARTS))


def _own_part() -> int:
    """Take a part that no other process has, for as long as this one lives."""
    parts = random.sample(range(PARTS), PARTS)
    folder = Path(tempfile.gettempdir(), f"relay-test-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for part in parts:
        file = os.open(folder / str(part), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
        else:
            return part  # the file stays open
    raise RuntimeError(
        f"All {PARTS} parts of the ports are taken: so many processes run tests. Wait for one to end."
    )
