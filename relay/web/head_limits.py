"""The bounds on the head of a request: the same on the HTTP listeners and for WebSocket handshakes."""

from typing import Final

from relay.core.errors import Reason, Refusal

MAX_HEAD_BYTES: Final = 32_768
"""Bytes of the request line and headers. nginx passes four lines of 8 KB; the cookies of a whole site fit. Without this
bound, one header of 30 MB took 40 MB of memory."""
MAX_HEADERS: Final = 100
"""Headers of a request. Apache takes 100 and browsers send some 20. Without this bound, 5,000 headers took 10 ms of the
loop."""
MAX_COOKIES: Final = 200
"""Cookies of a request. Browsers keep about 180 for a site. Without this bound, 10,000 of them took 18 ms of the
loop."""


def too_large() -> Refusal:
    """Return the refusal of a head above one of the bounds."""
    return Refusal(
        reason=Reason.HEAD_TOO_LARGE,
        detail=f"A request has at most {MAX_HEAD_BYTES} bytes before its body, {MAX_HEADERS} headers and "
        f"{MAX_COOKIES} cookies.",
    )


def count_cookies(value: bytes | str) -> int:
    """Return how many cookies a Cookie header may have, without parsing it."""
    separator: bytes | str = b";" if isinstance(value, bytes) else ";"
    return value.count(separator) + 1  # type: ignore[arg-type]  # of the same type
