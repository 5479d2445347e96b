"""Frames of the publisher's socket, relay.ingest.v1: NDJSON in, and acks, errors and the end out. No socket here."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from relay.core.publications import MAX_PUBLICATION_BYTES
from relay.core.sequencer import Drop

PROTOCOL = "relay.ingest.v1"

MAX_FRAME_BYTES = 1 << 20
MAX_FRAME_MESSAGES = 256
"""Of one frame. Handled 64 at a time, so that prices to subscribers go out in between."""

WINDOW = 4096
"""Messages that may be on their way without an ack: 0.2 s of 20,000 a second, and a few MB at most of prices."""


class _Identity(msgspec.Struct):
    id: int


_identity = msgspec.json.Decoder(_Identity)
encode = msgspec.json.Encoder().encode


def identify(line: bytes) -> int | None:
    """Return the id of a message that is wrong in some other way, None if it can't be told."""
    try:
        return _identity.decode(line).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def welcome(*, publisher: str, epoch: str, streams: Sequence[str], credit: int, ts: int) -> dict[str, Any]:
    """Return the first frame. `streams` are the patterns of the channels whose messages all count, one by one."""
    return {
        "type": "welcome",
        "protocol": PROTOCOL,
        "publisher": publisher,
        "ts": ts,
        "epoch": epoch,
        "streams": streams,
        "credit": credit,
        "limits": {
            "message_bytes": MAX_PUBLICATION_BYTES,
            "frame_bytes": MAX_FRAME_BYTES,
            "frame_messages": MAX_FRAME_MESSAGES,
        },
    }


class Ledger:
    """What is to be acknowledged on one connection: which ids are settled, and what the publisher was not told yet."""

    def __init__(self) -> None:
        self.upto = 0
        self._told: dict[str, str] = {}  # channel -> epoch; bounded by the channels that there are
        self._epochs: dict[str, str] = {}
        self._dropped: dict[Drop, list[int]] = {}

    def published(self, id_: int, channel: str, epoch: str, dropped: Drop | None) -> None:
        """Settle a message that was published, or dropped."""
        self.upto = id_
        if self._told.get(channel) != epoch:
            self._told[channel] = self._epochs[channel] = epoch
        if dropped is not None:
            self._dropped.setdefault(dropped, []).append(id_)

    def refused(self, id_: int) -> None:
        """Settle a message whose error goes out before the next ack."""
        self.upto = id_

    def ack(self, *, credit: int) -> Mapping[str, Any]:
        """Return the ack of all that is settled; `credit` is the highest id that may be sent from now on."""
        frame: dict[str, Any] = {"type": "ack", "upto": self.upto, "credit": credit}
        if self._epochs:
            frame["epoch"] = self._epochs
        frame |= {why.value: ids for why, ids in self._dropped.items()}
        self._epochs, self._dropped = {}, {}
        return frame
