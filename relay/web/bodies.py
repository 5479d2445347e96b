"""Request bodies, read with bounds on size and time before anything is parsed."""

import asyncio
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from relay.core import strict_json
from relay.core.errors import MalformedError, Reason

BODY_WITHIN_S: Final = 10.0
"""Seconds for a whole body: enough for a batch of 1 MiB at 1 Mbit/s. Without a bound, a body that comes byte by byte
holds a connection and a task."""


async def read_body(request: Request, *, max_bytes: int, too_large: Reason) -> bytes:
    """Read the whole body, at most `max_bytes` of it.

    Raises:
        MalformedError: reason `too_large` as soon as it is longer, `body_encoded` if it is compressed,
            `request_malformed` if it does not come in time or breaks off.
    """
    encodings = ", ".join(request.headers.getlist("content-encoding")).strip()
    if encodings and encodings.lower() != "identity":
        raise MalformedError(
            f"Send the body as it is: Content-Encoding {encodings[:40]} is not supported.",
            reason=Reason.BODY_ENCODED,
        )
    if request.headers.get("content-length") == "0":  # nothing to wait for, and no timer to set
        return b""
    oversized = MalformedError(f"The body has more than {max_bytes} bytes.", reason=too_large)
    if _content_length(request) > max_bytes:
        raise oversized
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:  # chunked bodies have no Content-Length
                    raise oversized
    except TimeoutError:
        raise MalformedError(f"The body did not come within {BODY_WITHIN_S:g} seconds.") from None
    except ClientDisconnect:  # no client gets the answer, but the audit log gets the event
        raise MalformedError("The body broke off.") from None
    return bytes(body)


def _content_length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


async def read_json_object(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object. An empty body counts as an empty object.

    A form is refused: a page of another site can send one without a CORS preflight (a "simple request").

    Raises:
        MalformedError: if the body is anything else.
    """
    body = await read_body(request, max_bytes=max_bytes, too_large=Reason.REQUEST_MALFORMED)
    if not body:
        return {}
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise MalformedError("Send a body of type application/json, or no body.")
    try:
        return strict_json.parse_object(body)
    except ValueError as error:
        raise MalformedError(f"The body is not a JSON object: {error}.") from None
