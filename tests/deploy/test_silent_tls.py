"""Connections that begin no TLS handshake: each listener counts them before TLS, and gives all of them back."""

import asyncio
import contextlib
import gc
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

from relay.net import tls_handshake
from relay.net.tls import ServerTls, TlsFiles
from relay.net.unauthenticated import Bounds, UnauthenticatedConnections
from tests.support.certificates import Authority
from tests.support.minted_tokens import process_of
from tests.support.ports import free_ports
from tests.support.raw_websocket import until
from tests.support.relay_process import Relay, make_relay
from tests.support.shared_relay import assert_quiet
from tests.support.stream_node import Node, running_node

LIMIT = 10
ROOM = 40
SILENT = 300
OTHERS = [f"127.0.8.{number}" for number in range(1, 31)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that nobody else knows."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Relay]:
    """A relay with TLS on its listeners that takes few connections."""
    ports = free_ports(3)
    limits = f"unauthenticated_per_address = {LIMIT}\nconnections = {ROOM}"
    relay = make_relay(tmp_path_factory.mktemp("relay"), ports=(ports[0], ports[1], ports[2]), limits=limits)
    pair = authority.issue("127.0.0.1")
    files = json.dumps({"cert": str(pair.cert), "key": str(pair.key)})
    relay.environment |= {
        "RELAY_PUBLIC__URL": f"https://127.0.0.1:{ports[0]}",
        "RELAY_PUBLIC__STREAM_URL": f"wss://127.0.0.1:{ports[1]}",
        "RELAY_LISTEN__TLS": files,
        "RELAY_LISTEN__INTERNAL_TLS": files,
    }
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)


@contextlib.asynccontextmanager
async def silent(port: int, sources: list[str]) -> AsyncIterator[None]:
    """Open a connection from each of these addresses, and send nothing."""
    sockets = [socket.create_connection(("127.0.0.1", port), source_address=(each, 0)) for each in sources]
    try:
        yield
    finally:
        for one in sockets:
            one.close()


@pytest.mark.parametrize("listener", [0, 1, 2], ids=["http", "stream", "internal"])
async def test_one_address_is_cut_off_before_tls(relay: Relay, authority: Authority, listener: int) -> None:
    """Of 300 silent connections of one address at most half of the room stay, and another address is served."""
    before = process_of(relay).num_fds()
    async with silent(relay.ports[listener], ["127.0.0.9"] * SILENT):
        await until(lambda: before < process_of(relay).num_fds() <= before + ROOM)
        _, writer = await asyncio.open_connection(
            "127.0.0.1", relay.ports[listener], ssl=authority.client_context()
        )
        writer.close()
    await until(lambda: process_of(relay).num_fds() <= before)


@pytest.mark.parametrize("listener", [0, 1, 2], ids=["http", "stream", "internal"])
async def test_all_addresses_together_are_counted_before_tls(relay: Relay, listener: int) -> None:
    """300 silent connections of 30 addresses, each below its limit, take no more than the room and a hundred."""
    before = process_of(relay).num_fds()
    async with silent(relay.ports[listener], OTHERS * (SILENT // len(OTHERS))):
        await until(lambda: before + ROOM <= process_of(relay).num_fds() <= before + ROOM + 100)
    await until(lambda: process_of(relay).num_fds() <= before)


async def rounds(node: Node, count: int) -> None:
    """Let some silent connections time out, some be cut off, and some end by themselves."""
    for _ in range(count):
        async with silent(node.port, ["127.0.0.1"] * 40):
            await until(lambda: 0 < node.unauthenticated.total <= 2 * LIMIT)
            await until(lambda: not node.unauthenticated.total)  # they have timed out
        async with silent(node.port, ["127.0.0.1"] * LIMIT):
            await until(lambda: node.unauthenticated.total == LIMIT)
        await until(lambda: not node.unauthenticated.total)


def counted() -> Counter[str]:
    """Return how many objects there are of each type that a handshake has."""
    parts = {"StreamConnection", "ServerProtocol", "TlsHandshake", "SSLProtocol", "TCPTransport"}
    names = (type(each).__name__ for each in gc.get_objects())
    return Counter(name for name in names if name in {*parts, "Task", "Future", "traceback", "generator"})


def test_a_failed_handshake_leaves_no_cycle(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference counting frees all objects of a handshake that fails. Full collections are put off for hours."""
    monkeypatch.setattr(tls_handshake, "HANDSHAKE_WITHIN_S", 0.3)
    pair = authority.issue("127.0.0.1", file="cycles")
    tls = ServerTls(TlsFiles(setting="listen.tls", cert=pair.cert, key=pair.key)).context

    async def left() -> dict[str, int]:
        unauthenticated = UnauthenticatedConnections(Bounds(limit=LIMIT, crowd=5))
        async with running_node(tmp_path, unauthenticated=unauthenticated, tls=tls) as node:
            await rounds(node, 1)  # what is made once
            gc.collect()
            gc.disable()
            try:
                before = counted()
                await rounds(node, 3)
                after = counted()
                # by this number the relay knows that there is memory to give back
                assert unauthenticated.unserved == 4 * (40 + LIMIT)
            finally:
                gc.enable()
        return {name: more for name, more in (after - before).items() if more > LIMIT}

    assert uvloop.run(left()) == {}
