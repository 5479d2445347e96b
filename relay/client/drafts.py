"""What a publisher sends: its values as JSON bytes, spliced into the envelope that the relay takes.

A value that is JSON already (`bytes` or `str`) goes out verbatim, because decoding and encoding it again
would damage decimals. Splicing unseen text would let `1,"channel":"other"` out of its place, so it is first
proven to be one JSON value. The relay checks everything again, and more strictly.
"""

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from relay.client.errors import PublishError
from relay.core.channels import check_channel
from relay.core.errors import MalformedError
from relay.core.publications import MAX_PUBLICATION_BYTES

_NEWLINES = bytes.maketrans(b"\r\n", b"  ")
_raw = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One value for `channel`.

    `data` is `bytes` or `str` of JSON, sent verbatim, or any object that JSON has. `source_ts` is when the
    value came about, in Unix milliseconds.
    """

    channel: str
    data: Any
    source_ts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the relay put a value: `seq` counts per channel from 1 within one `epoch`."""

    channel: str
    epoch: str
    seq: int


def encode_draft(message: Message) -> bytes:
    """Return the publication's body, on one line.

    Raises:
        PublishError: if it could not be accepted: no channel name, no JSON, too large. Nothing was sent.
    """
    try:
        channel = check_channel(message.channel)
    except MalformedError as error:
        raise PublishError("invalid_request", error.detail) from None
    source = b""
    if message.source_ts is not None:
        source = b',"source_ts":%d' % message.source_ts
    body = b'{"channel":"%b"%b,"data":%b}' % (channel.encode("ascii"), source, _encode_data(message.data))
    if len(body) > MAX_PUBLICATION_BYTES:
        raise PublishError(
            "too_large", f"A publication has at most {MAX_PUBLICATION_BYTES} bytes, not {len(body)}."
        )
    return body


def _encode_data(data: Any) -> bytes:
    if not isinstance(data, bytes | str):
        try:
            # not msgspec: it turns NaN into null without a word
            return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:  # ValueError: NaN, a cycle, a lone surrogate
            raise PublishError("invalid_request", f"The value can't be sent as JSON: {error}.") from None
    try:
        text = data.encode() if isinstance(data, str) else data
        if b"\n" in text or b"\r" in text:
            # a batch has one publication a line. Between tokens a line break is white space; inside a string
            # it is an error that this parser finds and msgspec's Raw lets pass
            json.loads(text)
            text = text.translate(_NEWLINES)
        _raw.decode(text)
    except (ValueError, RecursionError) as error:
        raise PublishError(
            "invalid_request",
            f"A value given as {type(data).__name__} is sent as it is and must be JSON: {error}.",
        ) from None
    return text
