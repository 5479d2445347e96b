"""What an answer of the backend needs before the browser may have it. Everything is decided from its head."""

import zlib
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from relay.bff.proxy.headers import (
    OF_THE_BYTES,
    HeaderLists,
    location_below_proxy,
    one_value,
    own_headers,
)
from relay.bff.proxy.requests import CheckedRequest
from relay.bff.proxy.upstream import Head

STREAMS: Final = frozenset(
    {
        b"text/event-stream",
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/x-jsonlines",
        b"application/json-seq",
        b"application/stream+json",
    }
)
"""Types whose pieces a browser wants at once."""


class RefusedAnswerError(Exception):
    """The answer can't be passed on. The text is for the audit log, and quotes nothing of the answer."""


class Handling(Enum):
    """How the body goes on."""

    NONE = auto()
    """There is none."""
    RAW = auto()
    """Piece by piece, as it comes."""
    STREAM = auto()
    """The same; the head goes on before the first piece."""
    JSON = auto()
    """It is read first, up to a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an answer goes on: its headers, and what happens to the body. `length` is its Content-Length, if it stays.

    `is_part`: it is a part of a text, which may have been cut in the middle of a token.
    """

    handling: Handling
    headers: list[tuple[bytes, bytes]]
    is_part: bool = False
    compressed: bool = False
    length: bytes = b""


def plan_answer(head: Head, request: CheckedRequest, lists: HeaderLists, *, origin: str) -> Plan:
    """Decide what happens to an answer.

    Raises:
        RefusedAnswerError: if it can't be passed on.
    """
    kind = _media_type(head)
    coding = _single(head, b"content-encoding").strip().lower()
    handling = _handling(head, request, kind)
    compressed = coding not in (b"", b"identity")
    if compressed and handling is Handling.STREAM:
        raise RefusedAnswerError("The backend compressed a stream, although it was asked not to.")
    if compressed and handling is Handling.JSON and coding not in (b"gzip", b"x-gzip", b"deflate"):
        raise RefusedAnswerError("The backend compressed JSON in a way that the relay can't read.")
    if head.status == 206 and kind.startswith(b"multipart/"):  # a token could be cut at each of their ends
        raise RefusedAnswerError("The answer has several parts, although one was asked for.")
    if request.route.strip is not None:
        _check_filterable(head, handling, kind)
    headers = lists.downward(head.headers)
    disposition = one_value(headers, b"content-disposition")
    if disposition is None:
        raise RefusedAnswerError("The answer has two content-disposition headers.")
    drop = {b"content-disposition", b"location"}
    if request.route.strip is not None or (compressed and handling is Handling.JSON):
        drop |= OF_THE_BYTES
    headers = [(name, value) for name, value in headers if name not in drop]
    headers += own_headers(attachment=request.attachment, disposition=disposition)
    if location := _single(head, b"location"):
        below = location_below_proxy(location, origin=origin, path=request.target.path)
        if below is None:
            raise RefusedAnswerError("The backend's Location leads to another server.")
        headers.append((b"location", below))
    length = b""
    if handling is Handling.STREAM:
        headers.append((b"x-accel-buffering", b"no"))
    elif handling is Handling.RAW or (request.method == "HEAD" and request.route.strip is None):
        length = _single(head, b"content-length")
        if compressed:
            headers.append((b"content-encoding", coding))
    return Plan(
        handling=handling,
        headers=headers,
        is_part=head.status == 206 and not compressed and _is_text(kind),
        compressed=compressed,
        length=length,
    )


def _handling(head: Head, request: CheckedRequest, kind: bytes) -> Handling:
    if request.method == "HEAD" or head.status in (204, 205, 304):
        return Handling.NONE
    if kind in STREAMS:
        return Handling.STREAM
    # a part of a document can't be read as one
    return Handling.JSON if is_json(kind) and head.status != 206 else Handling.RAW


def is_json(kind: bytes) -> bool:
    """Tell whether a media type is JSON (RFC 8259, RFC 6839 §3.1)."""
    return kind in (b"application/json", b"text/json") or kind.endswith(b"+json")


def _is_text(kind: bytes) -> bool:
    """Tell whether a token could stand in a body of this media type. Players ask for bytes 0 to 1 of a video."""
    return not kind or is_json(kind) or kind in STREAMS or kind.startswith(b"text/")


def _check_filterable(head: Head, handling: Handling, kind: bytes) -> None:
    if handling is Handling.NONE or _single(head, b"content-length") == b"0":
        return
    if head.status == 206:
        raise RefusedAnswerError("The route removes fields, and the answer is a part of a document.")
    if handling is not Handling.JSON or kind == b"text/json":
        raise RefusedAnswerError("The route removes fields, and the answer is not one JSON document.")


def _media_type(head: Head) -> bytes:
    return _single(head, b"content-type").partition(b";")[0].strip().lower()


def _single(head: Head, name: bytes) -> bytes:
    value = one_value(head.headers, name)
    if value is None:
        raise RefusedAnswerError(f"The answer has two {name.decode()} headers.")
    return value


def decompressed(body: bytes, *, most: int) -> bytes:
    """Return a compressed body in full. No more than `most` bytes are ever made of it.

    Raises:
        RefusedAnswerError: if there are more, or it is broken.
    """
    reader = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever it is
    try:
        found = reader.decompress(body, most + 1)
    except zlib.error:
        raise RefusedAnswerError("The compressed answer is broken.") from None
    if len(found) > most:
        raise RefusedAnswerError(f"The compressed answer has more than {most} bytes.")
    if not reader.eof or reader.unused_data:
        raise RefusedAnswerError("The compressed answer is broken.")
    return found
