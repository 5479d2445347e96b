"""The check in front of the internal listener, and the health checks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Message

from relay.ops.health import health_routes
from relay.web.internal_only import InternalOnly

HOSTS = frozenset({"localhost", "[::1]", "Relay.internal"})


async def call(
    *fields: tuple[bytes, bytes], path: str = "/live", query: str = "", why: str | None = None
) -> tuple[int, bytes]:
    """Call the application as a server would; return status and body."""
    routes = health_routes({"stream": lambda: why, "issuer": lambda: None})
    app = Starlette(routes=routes, middleware=[Middleware(InternalOnly, hosts=HOSTS)])
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": fields,
    }
    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    "host", [b"localhost", b"localhost:8002", b"LocalHost:1", b"[::1]", b"[::1]:8002", b"relay.internal"]
)
async def test_known_hosts_are_served(host: bytes) -> None:
    """With and without a port, in any case, as the settings or the caller spell it."""
    assert await call((b"host", host)) == (200, b'{"status":"ok"}')


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.example",
        b"localhost.evil.example",
        b"::1",
        b"[::1",
        b"[::1]x",
        b"localhost:",
        b"\xff",
        b"localhost:1:2",
    ],
)
async def test_other_hosts_are_refused(host: bytes) -> None:
    """A page that uses DNS rebinding reaches the address, but can't send the right name."""
    assert (await call((b"host", host)))[0] == (200 if host == b"localhost:" else 421)


async def test_no_host_or_two_are_refused() -> None:
    """With two names it is unknown which one a proxy has used."""
    assert (await call())[0] == 421
    assert (await call((b"host", b"localhost"), (b"host", b"localhost")))[0] == 421


@given(
    st.binary(max_size=30),
    st.lists(st.tuples(st.sampled_from([b"origin", b"sec-fetch-site"]), st.binary(max_size=12))),
)
async def test_any_headers_get_an_answer(host: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    """Calls pass with a known name and without an Origin or with the name's own. No header makes the check fail."""
    status, _ = await call((b"host", host), *fields)
    assert status in (200, 403, 421)
    if status == 200:
        origins = [value for name, value in fields if name == b"origin"]
        assert not origins or origins[0].lower() in (b"http://" + host.lower(), b"https://" + host.lower())


async def test_readiness_has_its_reason() -> None:
    """503 with the reason while new work should go to other nodes; the relay is alive nevertheless."""
    host = (b"host", b"localhost")
    status, body = await call(host, path="/ready", why="The relay is stopping.")
    assert (status, body) == (
        503,
        b'{"code":"not_ready","message":"The relay is stopping.","retryable":true}',
    )
    assert (await call(host, path="/ready"))[0] == 200
    for role, expected in (("stream", 503), ("issuer", 200), ("ingest", 503), ("cook", 400)):
        assert (await call(host, path="/ready", query=f"role={role}", why="The engine is away."))[
            0
        ] == expected
    assert (await call(host, why="The relay is stopping."))[0] == 200
