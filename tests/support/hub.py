"""A hub of the core with sinks that keep what was written: no socket, no clock."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from relay.core import messages
from relay.core.channels import ChannelOptions, Encoder
from relay.core.hub import Hub
from relay.core.publications import Publication
from relay.core.subscribers import Pack, Subscriber
from relay.core.subscriptions import SubscribeRequest

ENDLESS = 1 << 40


def line_frame(message: bytes) -> bytes:
    """Encode a message for a transport whose frames are lines."""
    return message + b"\n"


def event_frame(message: bytes) -> bytes:
    """Encode a message for a second transport, whose frames look like Server-Sent Events."""
    return b"data: " + message + b"\n\n"


_PREFIXES: dict[Encoder, bytes] = {line_frame: b"", event_frame: b"data: "}


def lines(data: bytes, encode: Encoder) -> list[bytes]:
    """Return the messages in written bytes. All must be frames of this transport."""
    prefix = _PREFIXES[encode]
    found = [line for line in data.splitlines() if line]
    assert all(line.startswith(prefix) for line in found)
    return [line.removeprefix(prefix) for line in found]


def batch_of(encode: Encoder) -> Pack:
    """Return what packs the frames of this transport into one of its frames."""
    return lambda frames, _readers: encode(messages.batch(lines(frames, encode)))


def messages_in(data: bytes, encode: Encoder) -> list[dict[str, Any]]:
    """Return the messages in written bytes, those of batches one by one."""
    found = [json.loads(line) for line in lines(data, encode)]
    return [one for message in found for one in message.get("frames", [message])]


class Line:
    """A sink over a kernel that takes `room` bytes and then none until `take` makes room."""

    def __init__(self, room: int = ENDLESS, encode: Encoder = line_frame) -> None:
        self.room = room
        self.encode = encode
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
        """Return the messages that were written since the last call. All must be frames of its own transport."""
        data, self.read = b"".join(self.writes[self.read :]), len(self.writes)
        return messages_in(data, self.encode)

    def seqs(self) -> list[tuple[str, str, int]]:
        """Return type, channel and seq of the new frames."""
        return [(frame["type"], frame["channel"], frame["seq"]) for frame in self.frames()]


def publication(
    channel: str, seq: int, epoch: str = "e1", data: object = 0, ts: int | None = None
) -> Publication:
    at = seq if ts is None else ts
    return Publication(channel=channel, epoch=epoch, seq=seq, ts=at, data=json.dumps(data).encode())


def subscribe_requests(names: Iterable[str], interval_ms: int = 0) -> list[SubscribeRequest]:
    return [SubscribeRequest(name=name, interval_ms=interval_ms) for name in names]


def make_hub(
    options: Callable[[str], ChannelOptions] = lambda _name: ChannelOptions(),
) -> tuple[Hub, list[None]]:
    """Return a hub, and the list to which its `wake` appends."""
    woken: list[None] = []
    hub = Hub(
        wake=lambda: woken.append(None),
        wake_interval=lambda _interval_ms: None,
        options=options,
    )
    return hub, woken


def joined(
    hub: Hub, names: Iterable[str], room: int = ENDLESS, encode: Encoder = line_frame
) -> tuple[Line, Subscriber]:
    line = Line(room, encode)
    subscriber = hub.join(line, encode)
    hub.subscribe(subscriber, subscribe_requests(names))
    return line, subscriber


def flush(hub: Hub) -> None:
    while hub.flush(1):
        pass
