"""Security headers: a walk over all routes of both HTTP applications, and over what no route answers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from relay.demo.pages import demo_pages
from relay.net.sockets import bound_port
from relay.server.browser_files import browser_routes
from relay.server.internal import internal_app
from relay.server.parts import make_parts
from relay.server.public import public_app
from relay.server.session_verifier import session_cookies
from relay.sessions.cookies import SessionCookies
from relay.settings.load import load
from relay.web.uvicorn_runner import HttpServer
from tests.support.http_client import http_client
from tests.support.raw_http import Answer, bearing, exchange, head, knock, upgrade
from tests.support.relay_process import Relay, make_relay, running

ALWAYS = {
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
FILES = ["/demo/demo.css", "/demo/demo.js", "/demo/none", "/ops/ops.css", "/ops/page.js", "/ops/none"]
CLIENT = {route.path for route in browser_routes()}
MAY_BE_KEPT = {"/.well-known/jwks.json", "/", "/ops", *FILES, *CLIENT}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


async def broken(_request: Request) -> Response:
    """Fail, as a bug of ours would."""
    raise RuntimeError("a bug")


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Serve an application as the relay does; gives its address."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, sock)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        try:
            yield f"http://127.0.0.1:{bound_port(sock)}"
        finally:
            server.stop()


def paths(routes: Sequence[BaseRoute]) -> list[str]:
    """Return the routes' paths, with what stands for a name filled in, and one that is no route."""
    found = [route.path for route in routes if isinstance(route, Route | WebSocketRoute)]
    assert len(found) == len(routes), "a route that this walk does not know"
    filled = [path for path in found if "{" not in path]
    return [*filled, *FILES, "/nowhere"]


def check(method: str, path: str, answer: httpx.Response) -> None:
    """Check the headers of one answer."""
    where = f"{method} {path}: {answer.status_code}"
    found = {name: answer.headers.get_list(name) for name in ALWAYS}
    assert found == {name: [value] for name, value in ALWAYS.items()}, where
    [policy] = answer.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy, where
    assert "frame-ancestors 'none'" in policy, where
    kept = path in MAY_BE_KEPT and answer.status_code == 200
    caching = ["private, no-store" if "set-cookie" in answer.headers else "no-store"]
    assert kept or answer.headers.get_list("cache-control") in (caching, ["private, no-store"]), where
    assert "strict-transport-security" not in answer.headers, "nobody speaks TLS here"
    assert "server" not in answer.headers, where


async def test_every_answer_of_every_route(tmp_path: Path) -> None:
    """Whatever the method, found or not, refused or failed: each answer has its headers once."""
    relay = make_relay(tmp_path, bff='backend = "http://127.0.0.1:9"')
    settings = load(relay.folder / "relay.toml")
    statuses: set[int] = set()
    async with make_parts(settings) as parts:
        pages = [
            *demo_pages(
                audit_path=settings.audit.path,
                source="none",
                symbols=0,
                stream_url="ws://127.0.0.1:1",
                cookies=session_cookies(settings),
            ),
            Route("/broken", broken),
        ]
        for app in (public_app(parts, pages), internal_app(parts)):
            async with serving(app) as url, http_client() as client:
                for path in paths(app.routes):
                    for method in METHODS:
                        answer = await client.request(method, url + path, headers={"X-Relay-CSRF": "1"})
                        check(method, path, answer)
                        statuses.add(answer.status_code)
    assert statuses >= {200, 400, 401, 404, 405, 500}


async def test_answers_that_no_application_gives(tmp_path: Path) -> None:
    """What is no HTTP, a head that is too large, and a page that the internal listener refuses."""
    with running(tmp_path) as relay:
        garbage = await exchange(relay.ports[0], b"garbage\r\n\r\n")
        large = await exchange(relay.ports[0], head("GET", "/", [("Host", "x"), ("X", "a" * 40_000)]))
        foreign = await exchange(relay.ports[2], head("GET", "/v1/channels", [("Host", "evil.example")]))
        gate = await refused_by_the_gate(relay)
    assert (garbage.status, large.status, foreign.status) == (400, 431, 421)
    for answer in (garbage, large, foreign, *gate):
        assert {name: answer.all(name) for name in ALWAYS} == {
            name: [value] for name, value in ALWAYS.items()
        }
        assert answer.all("cache-control") == ["private, no-store"]
        assert answer.all("content-security-policy") == ["default-src 'none'; frame-ancestors 'none'"]


async def refused_by_the_gate(relay: Relay) -> list[Answer]:
    """Return handshakes that the stream's listener refuses: path, token, origin, no upgrade."""
    found = [
        await knock(relay, "/nowhere"),
        await knock(relay, fields=[*upgrade(relay), bearing("x.y.z")]),
        await knock(relay, fields=upgrade(relay, origin="https://evil.example")),
        await knock(relay, fields=[("Host", "127.0.0.1")]),
    ]
    assert [answer.status for answer in found] == [404, 401, 403, 426]
    return found


async def test_the_page_has_its_own_policy(tmp_path: Path) -> None:
    """A page's own policy is not overwritten: it may load its scripts, and be framed nowhere."""
    pages = demo_pages(
        audit_path=tmp_path / "none",
        source="none",
        symbols=0,
        stream_url="ws://127.0.0.1:1",
        cookies=SessionCookies(names=("none",)),
    )
    async with (
        serving(Starlette(routes=list(pages))) as url,
        http_client() as client,
    ):
        answer = await client.get(url)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].count("frame-ancestors") == 1
