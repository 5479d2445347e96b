"""Ports that a test may name in settings before anything listens on them."""

import contextlib
import os
import random
import socket
from collections import deque

LOWEST, HIGHEST = 10_100, 32_000
"""Above 10080, the last port that browsers refuse to ask (Fetch §2.9, port blocking), and below those that the
kernel gives to clients. On a port of theirs that nobody listens on yet, a client of the same machine may be
connected with itself, and keep the server from binding it."""

WORKERS = 10
"""Parts of that range, one for each of pytest's workers: two that look at the same time don't find the same port."""

_recent: deque[int] = deque(maxlen=1000)
"""Ports that were given last. None is given again soon: a backend may not listen on its port all the time."""


def free_ports(count: int) -> list[int]:
    """Return ports that are free now. The settings must name them, because tokens say where they are for."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    ours = range(LOWEST + worker, HIGHEST, WORKERS)
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = random.choice(ours)
            if port in _recent:
                continue
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
                _recent.append(port)
    return found
