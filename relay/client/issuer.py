"""Asking the issuer for a scoped token as a server-side caller: with the session's access token as Bearer.

A scoped token opens one connection within 30 seconds, so it is fetched for every attempt and never kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from relay.client.answers import check_base_url, read_problem
from relay.client.errors import TokenError
from relay.core.errors import ConfigurationError
from relay.net.http_client import async_client

TIMEOUT_S = 10.0
"""The issuer gives its own session check 2 s; whoever takes five times as long is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopedToken:
    """A token for one connection to `endpoint`. `rejected` are the channels that were asked for in vain."""

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
        session_token: the session's access token; it goes to the issuer and nowhere else.
        endpoint: the endpoint's name in the settings; None for the issuer's default.
        channels: channels and patterns to ask for, at most 32; None for all that the session may see.
        origin: the browser's origin, if a browser shall use the token. A token without one opens only
            connections that send no Origin header.

    Raises:
        TokenError: if the issuer refuses (`retryable` false), or can't be reached or answer now (true).
        ConfigurationError: if an argument can't be right.
    """
    base = check_base_url(issuer_url, ("http", "https"))
    if not session_token.isascii() or not session_token.isprintable() or not session_token.strip():
        raise ConfigurationError("The session token is empty, or has characters that no token has.")
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
            "unexpected_answer", f"What answers at {base} is not an issuer of this relay.", status=200
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
