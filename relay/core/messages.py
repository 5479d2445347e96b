"""The frames of the wire protocol relay.v1, as JSON text.

All frames of the server are built here, as bytes. A data frame is spliced around the publisher's own bytes. It has
nothing that belongs to one connection, so all subscribers of a channel get the same bytes.

The frames of clients are parsed into frozen structs. Unknown members are ignored, and an unknown type is answered with
an error frame and not with a close. This lets newer clients use older servers.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec

from relay.core.errors import MalformedError, Reason
from relay.core.form_errors import in_words
from relay.core.publications import Publication


class Mode(StrEnum):
    """How messages of a channel are delivered."""

    LATEST = "latest"
    """For prices: a slow subscriber gets the newest value, and never an old one."""
    STREAM = "stream"
    """For trades: a subscriber gets every message in order, or its connection ends."""


PROTOCOL = "relay.v1"
MAX_FRAME_BYTES = 16_384
"""Longest frame of a client. A `subscribe` with 256 channels of 60 bytes fits."""
MAX_CHANNELS_A_FRAME = 256
MAX_CHANNELS_A_CONNECTION = 1024
"""A pattern counts as one. Binance allows 1024 streams per connection too."""
HEARTBEAT_MS = 5000


class Auth(msgspec.Struct, frozen=True):
    """`auth`: the token, as the first frame."""

    token: str


class Since(msgspec.Struct, frozen=True):
    """The last message that a client has of a `stream` channel."""

    epoch: str
    seq: int


class Subscribe(msgspec.Struct, frozen=True):
    """`subscribe` to channels and patterns. `since` says for exact channels where to resume."""

    channels: list[str]
    id: int | None = None
    interval_ms: int = 0
    since: dict[str, Since] = {}  # msgspec copies it


class Unsubscribe(msgspec.Struct, frozen=True):
    """`unsubscribe`: undo `subscribe` of the same names."""

    channels: list[str]
    id: int | None = None


class Refresh(msgspec.Struct, frozen=True):
    """`refresh`: a new token, which extends the connection."""

    token: str = msgspec.field(default="")
    id: int | None = None

    def __repr__(self) -> str:
        """Return a text without the token."""
        return f"Refresh(id={self.id})"


class Ping(msgspec.Struct, frozen=True):
    """`ping`: it is answered with `pong`, which has the server's clock."""

    id: int | None = None


class Unknown(msgspec.Struct, frozen=True):
    """A frame with a type that this server does not know."""

    type: str
    id: int | None = None


ClientFrame = Auth | Subscribe | Unsubscribe | Refresh | Ping | Unknown

_subscribe = msgspec.json.Decoder(Subscribe)
_since = msgspec.json.Decoder(dict[str, Since])
_envelope = msgspec.json.Decoder(Unknown)
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "auth": msgspec.json.Decoder(Auth),
    "subscribe": _subscribe,
    "unsubscribe": msgspec.json.Decoder(Unsubscribe),
    "refresh": msgspec.json.Decoder(Refresh),
    "ping": msgspec.json.Decoder(Ping),
}
_encode = msgspec.json.encode
Parsed = TypeVar("Parsed")


def parse_client_frame(text: str) -> ClientFrame:
    """Parse one text frame from a client.

    Raises:
        MalformedError: if it is not a JSON object with a `type`, or if a member has the wrong type.
    """
    envelope = _parse(_envelope, text)
    decoder = _decoders.get(envelope.type)
    frame: ClientFrame = envelope if decoder is None else _parse(decoder, text)
    if not isinstance(frame, Auth) and frame.id is not None and not -(1 << 53) < frame.id < 1 << 53:
        raise MalformedError(
            "id must be a whole number between -2^53 and 2^53", reason=Reason.FRAME_MALFORMED
        )
    return frame


def parse_subscribe(text: str) -> Subscribe:
    """Parse a `subscribe` without its `type`: the subscriptions of a transport that has no frames of clients.

    Raises:
        MalformedError: if it does not have the documented form.
    """
    return _parse(_subscribe, text)


def parse_since(text: str) -> dict[str, Since]:
    """Parse the positions to resume from, by channel.

    Raises:
        MalformedError: if they do not have the documented form.
    """
    return _parse(_since, text)


def _parse(decoder: "msgspec.json.Decoder[Parsed]", text: str) -> "Parsed":
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise MalformedError(in_words(error)[:120], reason=Reason.FRAME_MALFORMED) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise MalformedError(str(error)[:120], reason=Reason.FRAME_MALFORMED) from None


def update(publication: Publication) -> bytes:
    """Build the `update` of one publication. It is the same for every subscriber."""
    source = b"" if publication.source_ts is None else b',"source_ts":%d' % publication.source_ts
    return b'{"type":"update","channel":"%b","seq":%d,"ts":%d%b,"data":%b}' % (
        publication.channel.encode("ascii"),
        publication.seq,
        publication.ts,
        source,
        publication.data,
    )


def snapshot(publication: Publication) -> bytes:
    """Build the `snapshot` of one publication, the first value of a subscription and of an epoch."""
    return b'{"type":"snapshot","channel":"%b","epoch":"%b","seq":%d,"ts":%d,"data":%b}' % (
        publication.channel.encode("ascii"),
        publication.epoch.encode("ascii"),
        publication.seq,
        publication.ts,
        publication.data,
    )


def batch(frames: Sequence[bytes]) -> bytes:
    """Build one message of the `update`, `snapshot` and `status` messages that a flush has for a subscriber."""
    return b'{"type":"batch","frames":[%b]}' % b",".join(frames)


def welcome(*, connection: str, ts: int, expires_at: int, frames_per_s: int) -> bytes:
    """Build the first frame of every connection. `ts` and `expires_at` are Unix milliseconds."""
    return _encode(
        {
            "type": "welcome",
            "connection": connection,
            "protocol": PROTOCOL,
            "ts": ts,
            "heartbeat_ms": HEARTBEAT_MS,
            "expires_at": expires_at,
            "limits": {
                "channels": MAX_CHANNELS_A_CONNECTION,
                "frame_bytes": MAX_FRAME_BYTES,
                "frames_per_s": frames_per_s,
            },
        }
    )


class ChannelAck(msgspec.Struct, frozen=True, kw_only=True):
    """One exact channel in a `subscribed`. `seq` is 0 if the channel has no value yet."""

    channel: str
    mode: Mode
    interval_ms: int
    epoch: str
    seq: int
    state: Literal["live", "stale"]
    recovered: bool = False


class PatternAck(msgspec.Struct, frozen=True, kw_only=True):
    """One pattern in a `subscribed`, with the number of channels that it matches now."""

    channel: str
    mode: Mode
    interval_ms: int
    matches: int


RejectionCode = Literal["forbidden", "malformed", "too_many_channels"]


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """One channel that was not subscribed, and the reason."""

    channel: str
    code: RejectionCode
    message: str


def subscribed(
    *, id: int | None, channels: Sequence[ChannelAck | PatternAck], rejected: Sequence[Rejection]
) -> bytes:
    """Build the answer to a `subscribe`. It must be sent before any data of its channels."""
    return _encode(_with_id("subscribed", id) | {"channels": channels, "rejected": rejected})


def unsubscribed(*, id: int | None, channels: Sequence[str]) -> bytes:
    """Build the answer to an `unsubscribe`. No data of its channels may be sent after it."""
    return _encode(_with_id("unsubscribed", id) | {"channels": channels})


def pong(*, id: int | None, ts: int) -> bytes:
    """Build the answer to a `ping`."""
    return _encode(_with_id("pong", id) | {"ts": ts})


def token_expiring(*, expires_in_ms: int) -> bytes:
    """Build the warning that the connection will end unless it is refreshed."""
    return _encode({"type": "token_expiring", "expires_in_ms": expires_in_ms})


def refreshed(*, id: int | None, expires_at: int) -> bytes:
    """Build the answer to a `refresh` that was accepted. `expires_at` is in Unix milliseconds."""
    return _encode(_with_id("refreshed", id) | {"expires_at": expires_at})


def reconnect(*, delay_ms: int) -> bytes:
    """Build the frame before a planned close. Each client gets its own delay, so that not all reconnect at once."""
    return b'{"type":"reconnect","delay_ms":%d}' % delay_ms


def closing(*, code: int, reason: str) -> bytes:
    """Build the last frame of a transport without close frames: the close code and its short text."""
    return _encode({"type": "close", "code": code, "reason": reason})


def heartbeat(*, ts: int) -> bytes:
    """Build the frame that is sent on a quiet connection, so that a client can tell it from a dead one."""
    return b'{"type":"heartbeat","ts":%d}' % ts


def status(*, channel: str, stale: bool, since: int) -> bytes:
    """Build a `status`: the channel became stale or live. `since` is its last sign of life in Unix ms."""
    state = b"stale" if stale else b"live"
    return b'{"type":"status","channel":"%b","state":"%b","since":%d}' % (
        channel.encode("ascii"),
        state,
        since,
    )


def error(
    *, code: str, message: str, retryable: bool, id: int | None = None, retry_after_ms: int | None = None
) -> bytes:
    """Build an `error`: something was refused, and the connection stays open."""
    frame = _with_id("error", id) | {"code": code, "message": message, "retryable": retryable}
    if retry_after_ms is not None:
        frame["retry_after_ms"] = retry_after_ms
    return _encode(frame)


def _with_id(kind: str, id: int | None) -> dict[str, Any]:
    return {"type": kind} if id is None else {"type": kind, "id": id}
