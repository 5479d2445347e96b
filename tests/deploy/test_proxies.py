"""The proxies of examples/deploy, really started: all goes through, addresses are right, and no log has a token."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.certificates import Authority
from tests.support.http_client import http_client
from tests.support.proxied_backend import Conversation, ProxiedBackend, page
from tests.support.raw_http import head
from tests.support.reverse_proxy import MIMIC, Front, caddy, nginx
from tests.support.shared_relay import assert_quiet
from tests.support.tls_clients import price, take_token, visit

PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module", params=list(PROXIES))
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A relay behind each of the proxies."""
    folder = tmp_path_factory.mktemp(request.param)
    with PROXIES[request.param](folder, Authority(folder)) as started:
        yield started
    assert_quiet(started.relay)


@pytest.fixture
def ca(front: Front) -> ssl.SSLContext:
    """What a client needs to believe the proxy."""
    return front.ca


@pytest.mark.parametrize("query", [False, True])
async def test_the_journey_through_the_proxy(front: Front, ca: ssl.SSLContext, *, query: bool) -> None:
    """A token, a socket and prices; the audit log has the browser's own address, and no log has the token."""
    relay, before = front.relay, front.logs().count("/ws/prices")
    async with visit(relay, front.url, ca, query=query, source=MIMIC) as (socket, token):
        for bid in ("64123.41", "64123.42"):
            await price(relay, relay.internal_url, socket, None, bid)
        transport = "query" if query else "subprotocol"
        accepted = await relay.recorded(
            lambda record: record["relay"].get("token", {}).get("transport") == transport
        )
    for record in (await relay.audited("token.issued"), accepted):
        assert (record["client"]["ip"], record["source"]["ip"]) == (MIMIC, "127.0.0.1")
    text = await written(front, "/ws/prices", before=before)
    for part in token.split("."):
        assert part not in text
    assert "token=" not in text
    assert "bearer." not in text


async def written(front: Front, path: str, *, before: int = 0) -> str:
    """Wait until the proxy's log has more requests of this path than before; they are written at their end."""
    async with asyncio.timeout(10):
        while True:
            text = front.logs()
            if text.count(path) > before:
                return text
            await asyncio.sleep(0.02)  # the log is a file: there is nothing to await


async def test_an_address_that_the_client_made_up(front: Front, ca: ssl.SSLContext) -> None:
    """X-Forwarded-For from outside is replaced by the proxy, and so are its cousins by nobody believed."""
    transport = httpx.AsyncHTTPTransport(verify=ca, local_address=MIMIC)
    async with http_client(transport=transport) as client:
        lies = {"X-Forwarded-For": "9.9.9.9", "X-Real-IP": "9.9.9.9", "Forwarded": "for=9.9.9.9"}
        answer = await client.post(f"{front.url}/auth/ws-token", headers=lies)
    assert answer.status_code == 403
    record = await front.relay.audited("token.denied")
    assert record["client"]["ip"] == MIMIC


async def test_refusals_pass_through(front: Front, ca: ssl.SSLContext) -> None:
    """A used token, a path that is none, a plain GET: the relay's own answers, or the proxy's 404."""
    relay = front.relay
    async with visit(relay, front.url, ca) as (_, token):
        pass
    for path, status in (("/ws/prices", 401), ("/ws/none", 404), ("/ws//prices", 404), ("/admin", 404)):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(
                f"{front.stream_url}{path}?token={token}",
                origin=front.url,  # type: ignore[arg-type]  # a NewType of str
                ssl=ca,
                proxy=None,
            ):
                pass
        assert refused.value.response.status_code == status, path
    async with http_client(verify=ca) as client:
        answer = await client.get(front.stream_url.replace("wss", "https") + "/ws/prices")
    assert answer.status_code == 426
    assert token.split(".")[2] not in await written(front, "/ws/none")


async def test_the_proxy_buffers_little_for_a_slow_reader(tmp_path: Path) -> None:
    """Behind nginx as the example has it: of 10 MB that nobody read no more than 2 arrive before the newest price."""
    with nginx(tmp_path, Authority(tmp_path)) as front:
        async with visit(front.relay, front.url, front.ca) as (socket, _):
            # the proxy's buffers are meant, and not what this client's kernel takes: up to 6 MB if it is let
            kernel = socket.websocket.transport.get_extra_info("socket")
            kernel.setsockopt(SOL_SOCKET, SO_RCVBUF, 65_536)
            socket.websocket.transport.pause_reading()
            for number in range(200):
                answer = await front.relay.publish("prices.BTC-USD", {"bid": number, "padding": "x" * 50_000})
                assert answer.status_code == 200
            socket.websocket.transport.resume_reading()
            seen: list[int] = []
            while not seen or seen[-1] != 199:
                seen.append((await socket.next())["data"]["bid"])
    assert len(seen) < 40


async def test_keys_and_browser_client_pass_with_their_headers(front: Front, ca: ssl.SSLContext) -> None:
    """Keys and browser client come through with their headers, over TLS that browsers are told to stay with."""
    async with http_client(verify=ca) as client:
        for path in ("/.well-known/jwks.json", "/client/relay-client.js"):
            answer = await client.get(front.url + path)
            assert answer.status_code == 200, path
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
        for path in ("/v1/publish", "/live", "/ready"):
            answer = await client.post(front.url + path)
            assert answer.status_code == 502, "that is the application's, and never the internal listener's"


@pytest.mark.parametrize("name", list(PROXIES))
async def test_a_relay_that_is_away(name: str, tmp_path: Path) -> None:
    """Clients get 502; what the proxy writes about it has no token, neither of a URL nor of a subprotocol."""
    with PROXIES[name](tmp_path, Authority(tmp_path)) as front:
        token = str((await take_token(front.relay, front.url, front.ca))["wsToken"])
        front.relay.kill()
        await knock_in_vain(front, token)
        text = await written(front, "/ws/prices")
    for part in token.split("."):
        assert part not in text


@pytest.mark.parametrize("name", list(PROXIES))
async def test_the_api_proxy_streams_through(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event arrives while the stream is open, an upload before its end; the target goes on byte for byte."""
    backend, go_on = ProxiedBackend(), asyncio.Event()
    monkeypatch.setenv("RELAY_BFF__BACKEND", backend.origin)
    monkeypatch.setenv("RELAY_BFF__PROXY__ROUTES", '{"/users": {"methods": ["GET", "POST"]}}')

    async def handler(conversation: Conversation) -> None:
        backend.requests.append(await conversation.head())
        if backend.last.line.startswith("POST"):
            await conversation.reader.readexactly(5)
            go_on.set()
            await conversation.reader.readexactly(5)
        await conversation.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await conversation.gone()

    with PROXIES[name](tmp_path, Authority(tmp_path)) as front:
        async with backend.serving(handler), asyncio.timeout(20):
            for method in ("GET", "POST"):
                reader, writer = await asyncio.open_connection(*front.url[8:].split(":"), ssl=front.ca)
                fields = [*page(front.relay), ("Content-Length", "10")][: 4 if method == "POST" else 3]
                fields[1] = ("Origin", front.url)
                writer.write(head(method, "/api/proxy/users/a%20b?b=2&a=%E9%FF", fields))
                if method == "POST":
                    writer.write(b"first")
                    await go_on.wait()
                    writer.write(b"after")
                await reader.readuntil(b"data: 1\n\n")
                writer.transport.abort()  # a close of asyncio waits for the proxy's, as no browser does
                await backend.all_closed()
    assert {one.line for one in backend.requests} == {
        f"{method} /users/a%20b?b=2&a=%E9%FF HTTP/1.1" for method in ("GET", "POST")
    }


async def knock_in_vain(front: Front, token: str) -> None:
    """Show a token at the proxy in both ways, and get 502."""
    for query, protocols in ((f"?token={token}", None), ("", ["relay.v1", f"bearer.{token}"])):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(
                f"{front.stream_url}/ws/prices{query}",
                subprotocols=protocols,  # type: ignore[arg-type]  # a list of a NewType of str
                origin=front.url,  # type: ignore[arg-type]  # a NewType of str
                ssl=front.ca,
                proxy=None,
            ):
                pass
        assert refused.value.response.status_code == 502
