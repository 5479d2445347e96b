"""The server's frames as types. Most of them are events as they are; `relay.client.events` has the client's own.

One msgspec call parses a frame into its struct. `data` stays the publisher's bytes until it is read: a program that
only forwards prices then does not pay for decoding, and does not damage a decimal. Unknown members and unknown types
are ignored, so that servers can add some (the protocol allows it).
"""

import json
from typing import Annotated, Any

import msgspec

from relay.core.errors import MalformedError, Reason

UnixMs = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
"""Unix milliseconds that a double can hold, as in JavaScript. A frame with another time is not of the protocol."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The connection's limits: channels in all, bytes in a frame to the server, frames a second."""

    channels: int = 1024
    frame_bytes: int = 16_384
    frames_per_s: float = 10


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """A connection is open. `ts` (the server's clock) and `expires_at` are Unix milliseconds."""

    connection: str
    ts: UnixMs
    expires_at: UnixMs
    heartbeat_ms: int = 5000
    protocol: str = "relay.v1"
    limits: Limits = msgspec.field(default_factory=Limits)


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """One channel of a `Subscribed`; a pattern has `matches` instead of `epoch`, `seq` and `state`."""

    channel: str
    mode: str = "latest"
    interval_ms: int = 0
    epoch: str | None = None
    seq: int | None = None
    state: str | None = None
    recovered: bool = False
    matches: int | None = None


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """One channel that was not subscribed, and why."""

    channel: str
    code: str
    message: str = ""


class Subscribed(msgspec.Struct, frozen=True, kw_only=True, tag="subscribed"):
    """The answer to a subscription. Check `rejected`: those channels were not subscribed."""

    channels: tuple[Acknowledged, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    id: int | None = None


class Unsubscribed(msgspec.Struct, frozen=True, kw_only=True, tag="unsubscribed"):
    """These channels are unsubscribed; no value of them follows on this connection."""

    channels: tuple[str, ...] = ()
    id: int | None = None


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """`raw` is the publisher's JSON, byte for byte; `ts` and `source_ts` are Unix milliseconds."""

    channel: str
    seq: int
    ts: UnixMs
    raw: msgspec.Raw = msgspec.field(name="data")
    source_ts: int | None = None

    @property
    def data(self) -> Any:
        """The value as Python objects. It is decoded at every call, and decimals become floats.

        Relays before this one accepted numbers that a float can't hold. They are infinite here, as in a browser.
        """
        try:
            return msgspec.json.decode(self.raw)
        except (msgspec.DecodeError, ValueError):
            return json.loads(bytes(self.raw), parse_int=_whole)


def _whole(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # Python does not read more than 4300 digits
        return float(text)


class Snapshot(_Value, frozen=True, kw_only=True, omit_defaults=True, tag="snapshot"):
    """A channel's current value, at the beginning of a subscription or of a new epoch."""

    epoch: str


class Update(_Value, frozen=True, kw_only=True, omit_defaults=True, tag="update"):
    """A channel's next value, complete."""


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="status"):
    """A channel went `stale` or `live` again, `since` then (Unix milliseconds on the server's clock).

    `cause` is `publisher` where the publisher fell silent or was heard again, and `link` where nothing of this
    connection can be believed for now: 1.5 heartbeats without a frame, or no connection at all.
    """

    channel: str
    state: str
    since: int | None = None
    cause: str = "publisher"


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """A frame of the client was refused, and the connection goes on. `id` is that frame's id."""

    code: str
    message: str = ""
    retryable: bool = False
    id: int | None = None
    retry_after_ms: int | None = None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """No other frame was sent for a while; `ts` is the server's clock in Unix milliseconds."""

    ts: UnixMs


class Reconnect(msgspec.Struct, frozen=True, kw_only=True, tag="reconnect"):
    """The server restarts soon and asks the client to reconnect after `delay_ms`."""

    delay_ms: int


class TokenExpiring(msgspec.Struct, frozen=True, kw_only=True, tag="token_expiring"):
    """The connection ends in `expires_in_ms` unless it is refreshed with a new token."""

    expires_in_ms: int


class Refreshed(msgspec.Struct, frozen=True, kw_only=True, tag="refreshed"):
    """The connection goes on with a new token, to `expires_at` (Unix milliseconds)."""

    expires_at: UnixMs
    id: int | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """Several frames in one message, which the relay has compressed for all readers of the same channels."""

    frames: tuple[msgspec.Raw, ...]


ServerFrame = (
    Welcome
    | Subscribed
    | Unsubscribed
    | Snapshot
    | Update
    | Status
    | Problem
    | Heartbeat
    | Reconnect
    | TokenExpiring
    | Refreshed
    | Batch
)


class _Envelope(msgspec.Struct):
    type: str


_TYPES = frozenset(
    {
        "welcome",
        "subscribed",
        "unsubscribed",
        "snapshot",
        "update",
        "status",
        "error",
        "heartbeat",
        "reconnect",
        "token_expiring",
        "refreshed",
        "batch",
    }
)
_decoder: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)
_envelope = msgspec.json.Decoder(_Envelope)


def parse_server_frame(text: str | bytes) -> ServerFrame | None:
    """Parse one frame from the server; None for an unknown type.

    Raises:
        MalformedError: if it is not a frame of the protocol.
    """
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        if _is_unknown(text):
            return None
        if (value := _parse_loosely(text)) is not None:
            return value
        raise MalformedError(str(error)[:200], reason=Reason.FRAME_MALFORMED) from None


def _parse_loosely(text: str | bytes) -> Snapshot | Update | None:
    """Parse a value whose data msgspec refuses, such as half of a surrogate pair. Older relays accepted these."""
    try:
        members = json.loads(text, parse_int=_whole)
        data, members["data"] = members["data"], None
        frame = _decoder.decode(json.dumps(members))
    except (ValueError, TypeError, KeyError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    if not isinstance(frame, Snapshot | Update):
        return None
    return msgspec.structs.replace(frame, raw=msgspec.Raw(json.dumps(data).encode()))


def _is_unknown(text: str | bytes) -> bool:
    try:
        return _envelope.decode(text).type not in _TYPES
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
