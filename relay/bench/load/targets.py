"""Where a load connects, and the requests that it sends there, written by hand."""

import base64
import secrets
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import msgspec

TOKEN_PATH = "/auth/ws-token"  # noqa: S105  # no password
MAX_NAMED = 32
"""Channels that one token may name. A token for more is for all that is granted, and the URL names the channels."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the load connects.

    `stream` is a ws:// address with its path; "": the endpoint that the issuer names. `issuer` gives a token for each
    connection to `endpoint`, for one of `sessions` in turn; "": no token is needed. `channels` are all channels to
    subscribe to at `interval_ms`, of which each connection has a hand; without any there is no acknowledgement.
    """

    stream: str
    issuer: str = ""
    endpoint: str = ""
    sessions: Sequence[str] = ()
    channels: Sequence[str] = ()
    interval_ms: int = 0


class Token(msgspec.Struct, frozen=True):
    """A scoped token as the issuer gives it; both are "" where there is no issuer."""

    wsToken: str = ""  # noqa: N815  # the wire's name
    endpoint: str = ""

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"Token(endpoint={self.endpoint!r})"


def stream_url(target: Target, hand: Sequence[int], token: Token) -> str:
    """Return where to connect. The query has only what the token does not say already."""
    fields = []
    if target.channels and (not target.issuer or len(hand) > MAX_NAMED):
        fields.append("channels=" + quote(",".join(target.channels[place] for place in hand), safe=",^/:~+"))
    if target.interval_ms:
        fields.append(f"interval_ms={target.interval_ms}")
    return (target.stream or token.endpoint) + (f"?{'&'.join(fields)}" if fields else "")


def token_request(target: Target, hand: Sequence[int], session: str) -> bytes:
    """Return the request for a token for the channels of a hand, if a token may name so many."""
    asked: dict[str, object] = {"endpoint": target.endpoint} if target.endpoint else {}
    if len(hand) <= MAX_NAMED:
        asked["channels"] = [target.channels[place] for place in hand]
    return post_request(target.issuer, TOKEN_PATH, msgspec.json.encode(asked), bearer=session)


def post_request(
    url: str, path: str, body: bytes, *, bearer: str = "", content_type: str = "application/json"
) -> bytes:
    """Return a POST request."""
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n{authorization}"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def handshake(stream: str, token: Token) -> bytes:
    """Return the request that upgrades to WebSocket, with the token if there is one."""
    parts = urlsplit(stream)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    protocols = f"Sec-WebSocket-Protocol: relay.v1, bearer.{token.wsToken}\r\n" if token.wsToken else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{protocols}\r\n"
    ).encode()
