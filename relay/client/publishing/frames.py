"""Frames that the relay sends on the publisher's WebSocket (relay.ingest.v1). Unknown members and types are ignored."""

import msgspec

from relay.core.errors import MalformedError, Reason


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The relay's limits for one frame."""

    frame_bytes: int = 1 << 20
    frame_messages: int = 256


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The connection is open. Messages up to the id `credit` may be sent.

    `epoch` identifies the relay's memory: it changes when the memory is lost. `streams` are the patterns of the
    channels of mode `stream`.
    """

    protocol: str
    credit: int
    epoch: str = ""
    streams: tuple[str, ...] = ()
    limits: Limits = Limits()


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """All messages up to `upto` are settled, and those up to `credit` may be sent.

    `epoch` has the channels whose epoch is new to this connection. `stale` and `duplicate` are the ids of dropped
    messages.
    """

    upto: int
    credit: int
    epoch: dict[str, str] = {}
    stale: tuple[int, ...] = ()
    duplicate: tuple[int, ...] = ()


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """One message was refused; without an `id`, the connection will end."""

    code: str
    message: str = ""
    retryable: bool = False
    id: int | None = None


class Reconnect(msgspec.Struct, frozen=True, kw_only=True, tag="reconnect"):
    """The relay restarts: reconnect after `delay_ms`."""

    delay_ms: int


Frame = Welcome | Ack | Problem | Reconnect

_TYPES = frozenset({"welcome", "ack", "error", "reconnect"})


class _Envelope(msgspec.Struct):
    type: str


_frame: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)
_envelope = msgspec.json.Decoder(_Envelope)


def parse_frame(text: str | bytes) -> Frame | None:
    """Parse one frame; None for an unknown type.

    Raises:
        MalformedError: if it is not a frame of the protocol.
    """
    try:
        return _frame.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        try:
            if _envelope.decode(text).type not in _TYPES:
                return None
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            pass
        raise MalformedError(str(error)[:200], reason=Reason.FRAME_MALFORMED) from None
