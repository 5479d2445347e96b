"""Reading HTTP responses of a server that may not be a relay.

A wrong port, a proxy's error page or a captive portal answers as well. Such a response must become one sentence with
its status, never a `KeyError` far from its cause.
"""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from relay.client.backoff import bounded_s
from relay.core.errors import ConfigurationError


class _Problem(msgspec.Struct):
    """The form of every error of a relay: all three members are always there."""

    code: str
    message: str
    retryable: bool


class Problem(NamedTuple):
    """An error response: public code, one sentence, and whether (and after how many seconds) to try again."""

    code: str
    message: str
    retryable: bool
    retry_after_s: float | None


_ELSEWHERE = (
    "The relay has nothing at this address. Check the path and the port: public HTTP, WebSockets and publishers have a "
    "port each."
)


def read_problem(status: int, body: bytes, retry_after: str | None) -> Problem:
    """Return a `Problem` for any response that is not a success.

    Only a relay can refuse for good. Any other answer comes from something between: a proxy during a deployment, a
    captive portal, a wrong route. It says nothing about the next attempt, so it is retryable.
    """
    try:
        wait = bounded_s(float(retry_after or ""))
    except ValueError:  # absent, or an HTTP date: the relay never sends one
        wait = None
    try:
        sent = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        message = f"The server answered {status} without a reason: it may not be a relay."
        return Problem("unexpected_answer", message, True, wait)
    message = _ELSEWHERE if sent.code == "not_found" else sent.message
    return Problem(sent.code, message, sent.retryable, wait)


def read_json(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `body`, or None if there is anything else."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_base_url(text: str, schemes: tuple[str, ...]) -> str:
    """Return `text` without a last slash if paths can be appended to it.

    Raises:
        ConfigurationError: if it is not a base URL; the message has an example.
    """
    example = f"{schemes[0]}://127.0.0.1:8002"
    try:
        parts = urlsplit(text)
        valid = parts.scheme in schemes and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # an invalid bracket or port
        valid = False
    if (
        not valid
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not text.isprintable()
        or " " in text
    ):
        raise ConfigurationError(f"{text[:200]!r} is not an address of a relay. An example: {example}.")
    return text.rstrip("/")
