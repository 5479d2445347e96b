"""Where a load connects, and the requests that it sends there, written by hand."""

import base64
import secrets
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import msgspec

TOKEN_PATH = "/auth/ws-token"  # noqa: S105  # no password
MAX_NAMED = 32
"""Channels that one token may name; for more it is taken for all that is granted, and the URL names them."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the load connects.

    `stream` is a ws:// address with its path; "": the endpoint that the issuer names. `issuer` is where a
    token is taken before each connection; "": none is needed, and no `endpoint` or `sessions` either. `sessions`
    are the session tokens to take turns with; `channels` is what there is to subscribe to, each connection to
    those that it is told, at `interval_ms`; without any, none waits for an acknowledgement.
    """

    stream: str
    issuer: str = ""
    endpoint: str = ""
    sessions: Sequence[str] = ()
    channels: Sequence[str] = ()
    interval_ms: int = 0


class Token(msgspec.Struct, frozen=True):
    """A scoped token as the issuer gives it. Where no issuer is, both are ""."""

    wsToken: str = ""  # noqa: N815  # the wire's name
    endpoint: str = ""

    def __repr__(self) -> str:
        """Show where it is for, and not what it is."""
        return f"Token(endpoint={self.endpoint!r})"


def query_of(target: Target, hand: Sequence[int]) -> str:
    """Return what the URL has to say, with its question mark: only what the token does not say already."""
    fields = []
    if target.channels and (not target.issuer or len(hand) > MAX_NAMED):
        fields.append("channels=" + quote(",".join(target.channels[place] for place in hand), safe=",^/:~+"))
    if target.interval_ms:
        fields.append(f"interval_ms={target.interval_ms}")
    return f"?{'&'.join(fields)}" if fields else ""


def token_body(target: Target, hand: Sequence[int]) -> bytes:
    """Return what the issuer is asked for: the channels of a hand, if a token may name so many."""
    asked: dict[str, object] = {"endpoint": target.endpoint} if target.endpoint else {}
    if len(hand) <= MAX_NAMED:
        asked["channels"] = [target.channels[place] for place in hand]
    return msgspec.json.encode(asked)


def token_request(target: Target, hand: Sequence[int], session: str) -> bytes:
    """Return the whole request for a token, for who asks without a `Poster`."""
    body = token_body(target, hand)
    head = (
        f"POST {TOKEN_PATH} HTTP/1.1\r\nHost: {urlsplit(target.issuer).netloc}\r\n"
        f"Authorization: Bearer {session}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def handshake(stream: str, token: Token) -> bytes:
    """Return the request that upgrades, with the token where there is one."""
    parts = urlsplit(stream)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    protocols = f"Sec-WebSocket-Protocol: relay.v1, bearer.{token.wsToken}\r\n" if token.wsToken else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{protocols}\r\n"
    ).encode()
