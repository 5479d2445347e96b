"""Encoding a publisher's values: JSON bytes inside the envelope that the relay takes.

A value that is JSON already (`bytes` or `str`) is sent verbatim, because decoding and encoding it again would damage
decimals. Each value is checked by the function that the relay uses: a text like `1,"channel":"other"` would otherwise
change the envelope, and one byte that is not UTF-8 ends the connection and with it all other messages.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict

import msgspec

from relay.client.errors import PublishError
from relay.core.errors import MalformedError
from relay.core.patterns import check_channel
from relay.core.publications import MAX_PUBLICATION_BYTES, check_data

KNOWN_CHANNELS = 8192
"""Channel names with a cached check: a market has some thousands, and a check costs as much as encoding a price."""

# a batch has one publication a line
_NEWLINES = bytes.maketrans(b"\r\n", b"  ")
# not msgspec: it encodes NaN as null without an error
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One value for `channel`.

    `data` is JSON as `bytes` or `str`, which is sent verbatim, or any object that JSON can represent. `version` is a
    whole number that grows with every value of the channel; the relay drops a value whose version is not newer. A
    higher `version_epoch` starts the versions again. `idempotency_key` has at most 64 characters; the relay drops a
    message with a known key. `source_ts` is the value's time at its source, in Unix milliseconds.
    """

    channel: str
    data: Any
    version: int | None = None
    version_epoch: int | None = None
    idempotency_key: str | None = None
    source_ts: int | None = None


class MessageOptions(TypedDict, total=False):
    """The optional members of a message; see `Message`."""

    version: int | None
    version_epoch: int | None
    idempotency_key: str | None
    source_ts: int | None


class EncodedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message ready to be sent: the members of its JSON object, without the braces, on one line.

    `is_named`: the caller gave a version or a key, by which the relay can recognize a repetition. `is_value` is False
    for a message that only says that the channel is alive.
    """

    channel: str
    members: bytes
    is_named: bool
    is_value: bool


def encode_message(message: Message) -> EncodedMessage:
    """Encode a message.

    Raises:
        PublishError: if the relay would refuse it: an invalid channel name, bad JSON, too large. Nothing was sent.
    """
    return encode_value(
        message.channel,
        message.data,
        version=message.version,
        version_epoch=message.version_epoch,
        idempotency_key=message.idempotency_key,
        source_ts=message.source_ts,
    )


def encode_value(
    channel: str,
    data: Any,
    *,
    version: int | None = None,
    version_epoch: int | None = None,
    idempotency_key: str | None = None,
    source_ts: int | None = None,
) -> EncodedMessage:
    """Encode the message that has these members. To make a `Message` first would take a tenth of `Publisher.send`.

    Raises:
        PublishError: as `encode_message`.
    """
    options = b""
    is_named = version is not None or idempotency_key is not None
    if is_named or source_ts is not None or version_epoch is not None:
        options = _encode_options(
            {"version": version, "version_epoch": version_epoch, "source_ts": source_ts}, idempotency_key
        )
    encoded = _encode_data(data)
    members = b'%b%b,"data":%b' % (_beginning(channel), options, encoded.translate(_NEWLINES))
    if len(members) + 2 > MAX_PUBLICATION_BYTES:
        raise PublishError(
            "too_large", f"A publication has at most {MAX_PUBLICATION_BYTES} bytes, not {len(members) + 2}."
        )
    try:
        # As it was given: a line break is white space between tokens, but an error inside a string.
        check_data(encoded)
    except MalformedError as error:
        raise PublishError("invalid_request", error.detail) from None
    return EncodedMessage(channel, members, is_named, is_value=True)


def encode_alive(channel: str) -> EncodedMessage:
    """Encode the message that says that a channel is unchanged and not silent.

    Raises:
        PublishError: if the channel name is invalid.
    """
    return EncodedMessage(channel, _beginning(channel) + b',"alive":true', is_named=True, is_value=False)


@lru_cache(maxsize=KNOWN_CHANNELS)
def _beginning(channel: str) -> bytes:
    try:
        return b'"channel":"%b"' % check_channel(channel).encode("ascii")
    except MalformedError as error:
        raise PublishError("invalid_request", error.detail) from None


def _encode_options(numbers: Mapping[str, int | None], idempotency_key: str | None) -> bytes:
    for name, value in numbers.items():
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 53):
            raise PublishError("invalid_request", f"{name} must be a whole number from 0 to 2^53 - 1.")
    members = {**numbers, "idempotency_key": idempotency_key}
    known = {name: value for name, value in members.items() if value is not None}
    return b"," + _encode(known).encode()[1:-1]


def _encode_data(data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return (data if isinstance(data, str) else _encode(data)).encode()
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: NaN, a cycle, a lone surrogate
        raise PublishError("invalid_request", f"The value can't be encoded as JSON: {error}.") from None
