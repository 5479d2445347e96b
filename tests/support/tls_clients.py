"""A browser's calls to a relay by its public addresses: a token over https, a WebSocket over wss."""

import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.http_client import http_client
from tests.support.relay_process import PUBLISHER_KEY, Relay, Socket


async def take_token(
    relay: Relay, url: str, ca: ssl.SSLContext, *, source: str = "127.0.0.1"
) -> dict[str, Any]:
    """Take a token from the page at `url`, with a fresh session's cookie; gives the whole answer."""
    transport = httpx.AsyncHTTPTransport(verify=ca, local_address=source)
    async with http_client(transport=transport) as client:
        cookie = f"access-token={relay.session()}"
        answer = await client.post(f"{url}/auth/ws-token", headers={"Cookie": cookie, "Origin": url})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@contextlib.asynccontextmanager
async def visit(
    relay: Relay, url: str, ca: ssl.SSLContext, *, query: bool = False, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[Socket, str]]:
    """Connect from the page at `url` to where the token's answer says; gives the socket and the token."""
    answer = await take_token(relay, url, ca, source=source)
    token = str(answer["wsToken"])
    protocols = [Subprotocol("relay.v1")] + ([] if query else [Subprotocol(f"bearer.{token}")])
    target = f"{answer['endpoint']}?channels=prices.BTC-USD" + (f"&token={token}" if query else "")
    async with connect(
        target,
        subprotocols=protocols,
        origin=url,  # type: ignore[arg-type]  # a NewType of str
        ssl=ca,
        compression=None,
        proxy=None,
        ping_interval=None,
        local_addr=(source, 0),
    ) as websocket:
        socket = Socket(websocket)
        socket.welcome = await socket.read("welcome")
        await socket.read("subscribed")
        yield socket, token


async def price(relay: Relay, url: str, socket: Socket, ca: ssl.SSLContext | None, bid: str) -> None:
    """Publish a price at the internal listener `url` and read it from the socket."""
    transport = httpx.AsyncHTTPTransport(verify=ca or False)
    async with http_client(transport=transport) as client:
        answer = await client.post(
            f"{url}/v1/publish",
            content=json.dumps({"channel": "prices.BTC-USD", "data": {"bid": bid}}),
            headers={"Authorization": f"Bearer {PUBLISHER_KEY}", "Content-Type": "application/json"},
        )
    assert answer.status_code == 200, answer.text
    while (await socket.next()).get("data") != {"bid": bid}:
        pass  # what was published before, or that it is stale
