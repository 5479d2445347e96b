"""Frames of the publishers' WebSocket protocol, relay.ingest.v1. Pure: no socket and no clock here."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from relay.core.publications import MAX_PUBLICATION_BYTES
from relay.core.sequencer import Drop

PROTOCOL = "relay.ingest.v1"

MAX_FRAME_BYTES = 1 << 20
MAX_FRAME_MESSAGES = 256
"""Most messages in one frame."""

WINDOW = 4096
"""Messages that a publisher may send ahead of the acks: 0.2 s at 20,000 a second, and a few MB of prices at most."""


MAX_KNOWN_EPOCHS = 100_000
"""Channels whose epoch one connection was told: as many as `limits.channels`. A connection outlives channels."""


class _Identity(msgspec.Struct):
    id: int


_identity = msgspec.json.Decoder(_Identity)
encode = msgspec.json.Encoder().encode


def message_id(line: bytes) -> int | None:
    """Return the id of a message that is malformed in another way, or None if it has no readable id."""
    try:
        return _identity.decode(line).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def welcome(*, publisher: str, epoch: str, streams: Sequence[str], credit: int, ts: int) -> dict[str, Any]:
    """Return the first frame. `streams` are the patterns of the stream channels, on which no message is conflated."""
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


class AckState:
    """The acknowledgement state of one connection: the settled ids, and the members of the next ack."""

    def __init__(self) -> None:
        self.upto = 0
        # channel → the epoch that the publisher knows; it is told again if there were too many channels
        self._known_epochs: dict[str, str] = {}
        self._new_epochs: dict[str, str] = {}
        self._dropped: dict[Drop, list[int]] = {}

    def published(self, id_: int, channel: str, epoch: str, dropped: Drop | None) -> None:
        """Settle a message that was published or dropped."""
        self.upto = id_
        if self._known_epochs.get(channel) != epoch:
            if len(self._known_epochs) >= MAX_KNOWN_EPOCHS:
                self._known_epochs.clear()
            self._known_epochs[channel] = self._new_epochs[channel] = epoch
        if dropped is not None:
            self._dropped.setdefault(dropped, []).append(id_)

    def refused(self, id_: int) -> None:
        """Settle a message whose error is sent before the next ack."""
        self.upto = id_

    def ack(self, *, credit: int) -> Mapping[str, Any]:
        """Return the ack of all settled messages. `credit` is the highest id that the publisher may send."""
        frame: dict[str, Any] = {"type": "ack", "upto": self.upto, "credit": credit}
        if self._new_epochs:
            frame["epoch"] = self._new_epochs
        frame |= {why.value: ids for why, ids in self._dropped.items()}
        self._new_epochs, self._dropped = {}, {}
        return frame
