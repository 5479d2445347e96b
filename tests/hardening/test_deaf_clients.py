"""Clients of the HTTP listeners that send requests and take no answers, or keep connections that they do not use."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from websockets.frames import Opcode

from tests.support.minted_tokens import process_of
from tests.support.raw_http import exchange, head
from tests.support.raw_websocket import masked, until
from tests.support.relay_process import PUBLISHER_KEY, Relay, running
from tests.support.shared_relay import assert_quiet

LIMIT = 10
LISTENERS = {"public": (0, "/.well-known/jwks.json"), "internal": (2, "/live")}
ON_EACH = pytest.mark.parametrize("listener", LISTENERS)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay that keeps few connections for one address."""
    with running(tmp_path, limits=f"unauthenticated_per_address = {LIMIT}") as relay:
        yield relay
    assert_quiet(relay)


def request(relay: Relay, listener: str) -> bytes:
    """Return a request that needs no key and no session."""
    number, path = LISTENERS[listener]
    return head("GET", path, [("Host", f"127.0.0.1:{relay.ports[number]}")])


@contextlib.asynccontextmanager
async def deaf(relay: Relay, listener: str, *, handshake: bytes = b"") -> AsyncIterator[socket.socket]:
    """Send requests, or pings after a handshake, until the relay reads no more of them, and read nothing."""
    requests = masked(Opcode.PING, b"x" * 125) * 100 if handshake else request(relay, listener) * 100
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.connect(("127.0.0.1", relay.ports[LISTENERS[listener][0]]))
        sock.setblocking(False)
        left = handshake

        def is_stuck() -> bool:
            nonlocal left
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    left = left or requests
                    count = sock.send(left)
                    left, sent = left[count:], sent + count
            return not sent

        for _ in range(5):  # in a row: the relay may be slow for a moment
            await until(is_stuck)
        yield sock


@ON_EACH
async def test_clients_that_go_while_they_are_answered_leave_no_traceback(
    relay: Relay, listener: str
) -> None:
    """Of pipelined requests only the newest knew that its client had gone, and the others wrote to nobody."""
    for _ in range(5):
        async with deaf(relay, listener) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    answer = await exchange(relay.ports[LISTENERS[listener][0]], request(relay, listener))
    assert answer.status == 200


@ON_EACH
async def test_a_client_that_takes_nothing_does_not_keep_the_relay_from_stopping(
    relay: Relay, listener: str
) -> None:
    """SIGTERM ends the process in seconds, in order, with such a connection open."""
    async with deaf(relay, listener):
        assert await asyncio.to_thread(relay.stop) == 0


async def test_a_publisher_that_takes_nothing_does_not_keep_the_relay_from_stopping(relay: Relay) -> None:
    """A flood of pings is no longer read when their answers wait, and the socket ends without a traceback."""
    handshake = head(
        "GET",
        "/v1/ingest",
        [
            ("Host", f"127.0.0.1:{relay.ports[2]}"),
            ("Authorization", f"Bearer {PUBLISHER_KEY}"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    )
    async with deaf(relay, "internal", handshake=handshake):
        assert await asyncio.to_thread(relay.stop) == 0


@ON_EACH
async def test_one_address_keeps_few_idle_connections(relay: Relay, listener: str) -> None:
    """Each of its requests is answered, and a connection above the limit is then closed. Each was kept for 75 s."""
    port, before = relay.ports[LISTENERS[listener][0]], process_of(relay).num_fds()
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5 * LIMIT)]
    for reader, writer in opened:
        writer.write(request(relay, listener))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await until(lambda: process_of(relay).num_fds() <= before + LIMIT)
    for _, writer in opened:
        writer.close()
