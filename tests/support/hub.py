"""A hub of the core with sinks that keep what was written: no socket, no clock."""

import json
from collections.abc import Iterable
from typing import Any

from relay.core.hub import Hub
from relay.core.publications import Publication
from relay.core.subscribers import Subscriber
from relay.core.subscriptions import Want

ENDLESS = 1 << 40


class Line:
    """A sink over a kernel that takes `room` bytes and then none until `take` makes room."""

    def __init__(self, room: int = ENDLESS) -> None:
        self.room = room
        self.waiting = 0
        self.writes: list[bytes] = []
        self.overflown = False
        self.read = 0  # writes that `frames` has returned

    def write(self, data: bytes) -> None:
        assert data
        self.writes.append(data)
        self.waiting += len(data)
        self.take(0)

    def take(self, room: int) -> None:
        """Let the kernel take so many bytes more."""
        self.room += room
        taken = min(self.room, self.waiting)
        self.room -= taken
        self.waiting -= taken

    def pending(self) -> int:
        return self.waiting

    def overflow(self) -> None:
        self.overflown = True

    def frames(self) -> list[dict[str, Any]]:
        """Return the frames that were written since the last call."""
        data, self.read = b"".join(self.writes[self.read :]), len(self.writes)
        return [json.loads(frame) for frame in data.splitlines()]

    def seqs(self) -> list[tuple[str, str, int]]:
        """Return type, channel and seq of the new frames."""
        return [(frame["type"], frame["channel"], frame["seq"]) for frame in self.frames()]


def publication(
    channel: str, seq: int, epoch: str = "e1", data: object = 0, ts: int | None = None
) -> Publication:
    at = seq if ts is None else ts
    return Publication(channel=channel, epoch=epoch, seq=seq, ts=at, data=json.dumps(data).encode())


def wants(names: Iterable[str], lane: int = 0) -> list[Want]:
    return [Want(name=name, lane=lane) for name in names]


def make_hub() -> tuple[Hub, list[None]]:
    """Return a hub whose frames are lines, and what its `wake` appends to."""
    woken: list[None] = []
    hub = Hub(
        encode=lambda message: message + b"\n",
        wake=lambda: woken.append(None),
        wake_lane=lambda _interval_ms: None,
    )
    return hub, woken


def joined(hub: Hub, names: Iterable[str], room: int = ENDLESS) -> tuple[Line, Subscriber]:
    line = Line(room)
    subscriber = hub.join(line)
    hub.subscribe(subscriber, wants(names))
    return line, subscriber


def flush(hub: Hub) -> None:
    while hub.flush(1):
        pass
