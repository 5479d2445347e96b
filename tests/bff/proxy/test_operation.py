"""What operators see of the proxy: counts, records and bursts of refusals; and a restart that ends no transfer."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.support.metrics_scrape import samples, scrape, value
from tests.support.operators import OPERATORS, revoke
from tests.support.proxied_backend import LIMITS, ROUTES, Conversation, ProxiedBackend, call, ok, page, reset
from tests.support.raw_http import head
from tests.support.relay_process import Relay, running


@pytest.fixture
def watched(backend: ProxiedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of the test's own, with operators and a limit for one session."""
    bff = f'backend = "{backend.origin}"\n{ROUTES}'.replace("idle_s = 2", "idle_s = 60").replace(
        "4000000", "40000000"
    )
    limits = LIMITS.replace("100000/minute", "30/minute", 1)
    with running(tmp_path_factory.mktemp("watched"), bff=bff, limits=limits, extra=OPERATORS) as relay:
        yield relay


async def test_answers_are_counted_and_a_burst_is_marked(watched: Relay, backend: ProxiedBackend) -> None:
    """By prefix and status. More calls than the session's limit are 429, and records of the burst have its mark."""
    session = watched.session()
    async with backend.answering(ok(status=201)):
        statuses = [(await call(watched, "/users", session=session)).status for _ in range(55)]
        assert (await call(watched, "/orders")).status == 201
        assert (await call(watched, "/nowhere")).status == 404
    assert statuses == [201] * 30 + [429] * 25
    found = samples((await scrape(watched)).text)
    for prefix, status, count in (
        ("/users", "201", 30),
        ("/users", "429", 25),
        ("/orders", "201", 1),
        ("", "404", 1),
    ):
        assert value(found, "relay_proxy_answers_total", prefix=prefix, status=status) == count
    assert value(found, "relay_proxy_calls") == 0
    record = await watched.audited("proxy.denied", reason="rate_limited")
    assert (record["url"]["path"], record["relay"]["method"], record["http"]["response"]["status_code"]) == (
        "/users",
        "GET",
        429,
    )
    assert record["user"]["id"] == "user-1"
    assert any("denial_burst" in one["relay"].get("anomalies", ()) for one in watched.audit())


async def test_a_revocation_ends_a_users_calls(watched: Relay, backend: ProxiedBackend) -> None:
    """One that waits gets 401, before anything of the backend's answer."""
    waiting = asyncio.Event()

    async def hang(conversation: Conversation) -> None:
        await conversation.request()
        waiting.set()
        await conversation.gone()

    async with backend.serving(hang), asyncio.timeout(10):
        running_call = asyncio.create_task(call(watched, "/users"))
        await waiting.wait()
        await revoke(watched, sub="user-1")
        assert (await running_call).status == 401
        await backend.all_closed()


async def test_a_client_that_goes_is_noticed_while_nobody_reads_from_it(
    watched: Relay, backend: ProxiedBackend
) -> None:
    """The backend takes no more of an upload, so the relay reads no more: the call ends all the same."""
    stuck, over = asyncio.Event(), asyncio.Event()

    async def take_nothing(conversation: Conversation) -> None:
        await conversation.head()
        conversation.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one of a socket
        stuck.set()
        await over.wait()
        conversation.writer.transport.abort()

    async with backend.serving(take_nothing), asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", watched.ports[0])
        fields = [*page(watched), ("Content-Length", "40000000")]
        writer.write(head("POST", "/api/proxy/orders", fields) + b"x" * 39_000_000)
        await stuck.wait()
        left = 0
        while left != (left := writer.transport.get_write_buffer_size()):  # noqa: ASYNC110  # see below
            await asyncio.sleep(0.3)  # there is nothing to await: nothing moves any more
        assert left
        reset(writer)
        async with asyncio.timeout(5):
            while value(samples((await scrape(watched)).text), "relay_proxy_calls"):  # noqa: ASYNC110  # see below
                await asyncio.sleep(0.05)  # nothing tells it
        over.set()


async def test_a_restart_lets_transfers_end(watched: Relay, backend: ProxiedBackend) -> None:
    """SIGTERM in the middle of a download: it arrives whole. A stream is cut, and the relay ends in order."""
    go_on = asyncio.Event()

    async def handler(conversation: Conversation) -> None:
        seen = await conversation.request()
        kind = b"text/event-stream" if "orders" in seen.line else b"text/plain\r\nContent-Length: 10"
        await conversation.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\nfirst" % kind)
        await go_on.wait()
        await conversation.write(b"after")
        await conversation.gone()

    async with backend.serving(handler), asyncio.timeout(15):
        clients = []
        for path in ("/users", "/orders"):
            reader, writer = await asyncio.open_connection("127.0.0.1", watched.ports[0])
            writer.write(head("GET", f"/api/proxy{path}", page(watched)))
            await reader.readuntil(b"first")
            clients.append((reader, writer))
        assert watched.process is not None
        watched.process.send_signal(signal.SIGTERM)
        while "stopping" not in watched.log_path.read_text():  # noqa: ASYNC110  # see below
            await asyncio.sleep(0.01)  # the log is a file: there is nothing to await
        go_on.set()
        assert await clients[0][0].readexactly(5) == b"after"
        assert b"0\r\n\r\n" not in await clients[1][0].read()
        assert await asyncio.to_thread(watched.stop) == 0
        for _, writer in clients:
            writer.close()
    assert "Traceback" not in watched.log_path.read_text()
