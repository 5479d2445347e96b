"""Browsers that come at the same time: one that must wait comes back, and one that is refused takes a new token."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay.bench.load import connections as program
from relay.bench.load.clients import Target
from relay.bench.load.connections import Arrived, Order
from tests.support.relay_process import Relay, running

TOKEN = b'HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{"wsToken":"t","endpoint":""}'
WAIT = b"HTTP/1.1 429 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
OLD = b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"
IN = b'HTTP/1.1 101 X\r\n\r\n\x81\x24{"type":"subscribed","rejected":[]}'


@asynccontextmanager
async def saying(*answers: bytes) -> AsyncIterator[str]:
    """Answer each new connection's request with the next of these, and go on reading; b"" hangs up."""
    left = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # browsers leave with a reset
            await reader.read(4096)
            if answer := next(left):
                writer.write(answer)
                await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def arrive(target: Target, connections: int) -> Arrived:
    """Let all come at once, and then leave; the process that is measured is this one."""
    order = Order(target=target, connections=connections, parallel=0, pid=os.getpid())
    arrived, links = await program.arrive(order)
    for task in links.values():
        task.cancel()
    await asyncio.gather(*links.values(), return_exceptions=True)
    return arrived


async def test_all_come_into_a_real_relay(tmp_path: Any) -> None:
    """Each with a token of its own, subscribed, from its own session."""
    with running(tmp_path) as relay:
        target = target_of(relay, sessions=30)
        arrived = await arrive(target, 30)
    accepted = [
        one for one in relay.audit() if one["event"]["action"] == "connect.accepted"
    ]  # all is written now
    assert (arrived.lost, arrived.refusals) == (0, {})
    assert len({one["relay"]["session"]["ref"] for one in accepted}) == 30
    assert arrived.max_ms is not None


def target_of(relay: Relay, *, sessions: int) -> Target:
    """Return where the browsers of a relay connect."""
    return Target(
        stream=f"{relay.stream_url}/ws/prices",
        issuer=relay.url,
        sessions=[relay.session() for _ in range(sessions)],
        channels=["prices.BENCH"],
    )


async def test_who_is_told_to_wait_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with a time, a link that breaks, and a token that was too old: three attempts more, and it is in."""
    monkeypatch.setattr(program, "FIRST_BACK_OFF_S", 0.01)
    issuer, stream = (WAIT, TOKEN, TOKEN, TOKEN), (OLD, b"", IN)
    async with saying(*issuer) as asked, saying(*stream) as connected:
        target = Target(
            stream=f"ws://{connected}/ws", issuer=f"http://{asked}", sessions=["s"], channels=["prices.A"]
        )
        arrived = await arrive(target, 1)
    assert arrived.lost == 0
    assert arrived.refusals == {"token: 429": 1, "handshake: 401": 1, "link: closed by the server": 1}
    assert arrived.max_ms is not None
    assert arrived.max_ms > 1000, "it waited as it was told"


async def test_who_never_gets_in_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """After eight attempts a browser counts as lost."""
    monkeypatch.setattr(program, "FIRST_BACK_OFF_S", 0.01)
    async with saying(*[OLD] * program.ATTEMPTS) as connected:
        arrived = await arrive(Target(stream=f"ws://{connected}/ws"), 1)
    assert (arrived.lost, arrived.max_ms) == (1, None)
    assert arrived.refusals == {"handshake: 401": program.ATTEMPTS}
