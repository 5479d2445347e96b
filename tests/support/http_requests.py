"""Requests made of their parts, without a socket."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.types import Message

Fields = Sequence[tuple[str | bytes, str | bytes]]


def as_bytes(text: str | bytes) -> bytes:
    """Return a header's text as it stands on the wire."""
    return text if isinstance(text, bytes) else text.encode("latin-1")


def make_request(
    *fields: tuple[str | bytes, str | bytes], chunks: Sequence[bytes] = (), breaks_off: bool = False
) -> Request:
    """Return a POST with these headers, whose body comes in these chunks and then may break off."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if breaks_off else {"type": "http.request", "body": b""})
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "client": ("192.0.2.1", 1),
        "headers": [(as_bytes(name).lower(), as_bytes(value)) for name, value in fields],
    }
    return Request(scope, receive)
