"""Fetching a scoped token from the issuer, as a server-side caller: the session's access token is the Bearer token.

A scoped token opens one connection within 30 seconds, so fetch one for every attempt and never store it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from relay.client.errors import TokenError
from relay.client.responses import check_base_url, read_problem
from relay.core.errors import ConfigurationError
from relay.net.http_client import async_client

TIMEOUT_S = 10.0
"""The issuer's own session check takes at most 2 s; after five times as long it is taken for unreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopedToken:
    """A token for one connection to `endpoint`, with the channels that it grants.

    `rejected` are the requested channels that the session may not see, and the patterns of which it sees only a part.
    """

    token: str = field(repr=False)
    endpoint: str
    channels: tuple[str, ...]
    rejected: tuple[str, ...] = ()
    expires_in_s: int


class _Rejected(msgspec.Struct):
    channel: str


class _Answer(msgspec.Struct):
    token: str = msgspec.field(name="wsToken")
    endpoint: str
    channels: tuple[str, ...]
    expires_in: int
    rejected: tuple[_Rejected, ...] = ()


async def fetch_token(
    issuer_url: str,
    session_token: str,
    *,
    endpoint: str | None = None,
    channels: Sequence[str] | None = None,
    origin: str | None = None,
) -> ScopedToken:
    """Exchange `session_token` for a scoped token.

    Args:
        issuer_url: the public HTTP address, like `https://app.example.com`.
        session_token: the session's access token; it is sent to the issuer only.
        endpoint: the endpoint's name in the settings; None for the issuer's default.
        channels: the channels and patterns, at most 32; None for all that the session may see.
        origin: the browser's origin, if a browser will use the token. A token without one opens only
            connections that send no Origin header.

    Raises:
        TokenError: if the issuer refuses (`retryable` is false), or can't be reached or answer now (it is true). It is
            true for the answer of another server too, such as a proxy during a deployment.
        ConfigurationError: if an argument is invalid.
    """
    base = check_base_url(issuer_url, ("http", "https"))
    if not session_token.isascii() or not session_token.isprintable() or not session_token.strip():
        raise ConfigurationError("The session token is empty, or has characters that a token can't have.")
    asked: dict[str, Any] = {"endpoint": endpoint, "channels": channels and list(channels), "origin": origin}
    body = {name: value for name, value in asked.items() if value is not None}
    async with async_client(base, timeout_s=TIMEOUT_S) as client:
        try:
            response = await client.post(
                f"{base}/auth/ws-token", json=body, headers={"Authorization": f"Bearer {session_token}"}
            )
        except httpx.TransportError as error:
            raise TokenError(
                "unreachable", f"The issuer at {base} can't be reached: {_what(error)}.", retryable=True
            ) from None
    return _read(response, base)


def _read(response: httpx.Response, base: str) -> ScopedToken:
    if response.status_code != 200:
        problem = read_problem(response.status_code, response.content, response.headers.get("retry-after"))
        raise TokenError(
            problem.code,
            f"The issuer gave no token: {problem.message}",
            status=response.status_code,
            retryable=problem.retryable,
            retry_after_s=problem.retry_after_s,
        )
    try:
        answer = msgspec.json.decode(response.content, type=_Answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise TokenError(
            "unexpected_answer",
            f"The server at {base} is not the issuer of a relay.",
            status=200,
            retryable=True,
        ) from None
    return ScopedToken(
        token=answer.token,
        endpoint=answer.endpoint,
        channels=answer.channels,
        rejected=tuple(item.channel for item in answer.rejected),
        expires_in_s=answer.expires_in,
    )


def _what(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
