"""Tokens minted with a relay's own key, connections with them, and the relay process's view of these connections."""

import json
import secrets
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from relay.core.tokens import Claims, SigningKey, mint
from relay.keys.files import load_keys
from tests.support.raw_websocket import RawWebSocket, open_raw_websocket, until
from tests.support.relay_process import Relay


@dataclass(frozen=True, kw_only=True)
class TokenMint:
    """Mints tokens for one relay, from the browser's origin `origin`."""

    key: SigningKey
    issuer: str
    audience: str
    origin: str

    def of_origin(self, origin: str) -> "TokenMint":
        """Return the mint of tokens that were requested by another origin, "" for a server."""
        return replace(self, origin=origin)

    def token(self, *channels: str, session: str = "", session_expires_at: int | None = None) -> str:
        """Return a fresh token of the session, or of one of its own."""
        now = int(time.time())
        claims = Claims(
            issuer=self.issuer,
            audience=self.audience,
            subject="user-1",
            session_ref=session or secrets.token_hex(8),
            channels=channels or ("prices.>",),
            origin=self.origin,
            jti=secrets.token_urlsafe(16),
            issued_at=now,
            expires_at=now + 30,
            session_expires_at=session_expires_at,
        )
        return mint(claims, self.key)


def token_mint_of(folder: Path, *, url: str, stream_url: str) -> TokenMint:
    """Return the mint for the relay whose keys are in `folder`."""
    key = load_keys(folder / "keys").signing
    assert key is not None
    return TokenMint(key=key, issuer=url, audience=f"{stream_url}/ws/prices", origin=url)


def process_of(relay: Relay) -> psutil.Process:
    """Return the relay's process, for its memory and its connections."""
    assert relay.process is not None
    return psutil.Process(relay.process.pid)


def audited(relay: Relay) -> list[dict[str, Any]]:
    """Return the audit log's records so far: the last line may be half-written, and is left out then."""
    whole, _, _ = relay.audit_path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def connected(relay: Relay) -> set[int]:
    """Return the clients' ports of the relay's open stream connections, half-closed ones included."""
    found = process_of(relay).net_connections(kind="tcp")
    return {item.raddr.port for item in found if item.raddr and item.laddr.port == relay.ports[1]}


async def released(relay: Relay, *wires: RawWebSocket) -> None:
    """Wait until the relay's process has closed these connections."""
    ports = {wire.port for wire in wires}
    await until(lambda: not ports & connected(relay))


def dial(
    relay: Relay, *, query: str = "", session: str = "", **options: Any
) -> AbstractAsyncContextManager[RawWebSocket]:
    """Open a WebSocket to `relay` with a token in the URL. Nothing has been read from it yet."""
    tickets = token_mint_of(relay.folder, url=relay.url, stream_url=relay.stream_url)
    target = f"/ws/prices?token={tickets.token(session=session)}{query}"
    return open_raw_websocket(relay.ports[1], target, origin=relay.url, **options)
