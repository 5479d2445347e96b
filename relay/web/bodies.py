"""Request bodies, read with a bound before anything is parsed."""

from typing import Any

from starlette.requests import Request

from relay.core.errors import MalformedError, Reason
from relay.core.jws import parse_json_object


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Read the whole body, at most `max_bytes` of it.

    Raises:
        MalformedError: reason `publication_too_large` as soon as it turns out to be longer.
    """
    too_large = MalformedError(
        f"The body has more than {max_bytes} bytes.", reason=Reason.PUBLICATION_TOO_LARGE
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:  # chunked bodies announce no length
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def read_json_object(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object, or nothing, which counts as an empty one.

    A form is refused: a page of another site can send one without asking first (a "simple request").

    Raises:
        MalformedError: if the body is anything else.
    """
    body = await read_body(request, max_bytes=max_bytes)
    if not body:
        return {}
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise MalformedError("Send the body as application/json, or none.")
    try:
        return parse_json_object(body)
    except ValueError as error:
        raise MalformedError(f"The body is not a JSON object: {error}.") from None
