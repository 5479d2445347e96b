"""The phases that real connections go through, by the ways in which they end."""

import asyncio
import contextlib
import logging
from collections import defaultdict

import pytest
from websockets.frames import Opcode

from relay.core.closes import close_for
from relay.core.errors import Reason
from relay.core.protocol import ClientProtocol
from relay.stream import connection
from relay.stream.lifecycle import Event, Phase, next_phase
from tests.support.raw_websocket import masked, open_raw_websocket, until
from tests.support.stream_node import ORIGIN, Node

HANDSHAKE = [Phase.QUEUED, Phase.HANDSHAKE]
OPENED = [*HANDSHAKE, Phase.UNAUTHENTICATED, Phase.OPEN]
ENDED = [Phase.CLOSING, Phase.LOST, Phase.FINISHED]


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> defaultdict[int, list[Phase]]:
    """Return the phases of each connection, in the order in which the connections came."""
    found: defaultdict[int, list[Phase]] = defaultdict(list)
    numbers: dict[connection.StreamConnection, int] = {}
    advance = connection.StreamConnection._advance

    def recorded(self: connection.StreamConnection, event: Event) -> Phase:
        before = self.phase
        then = next_phase(before, event)
        if then is not before:
            found[numbers.setdefault(self, len(numbers))].append(then)
        return advance(self, event)

    monkeypatch.setattr(connection.StreamConnection, "_advance", recorded)
    return found


async def finished(node: Node, walk: list[Phase]) -> list[Phase]:
    """Wait until a connection is finished and return its walk."""
    await until(lambda: walk[-1:] == [Phase.FINISHED])
    await node.empty()
    return walk


async def test_a_connection_that_the_relay_closes_walks_the_whole_way(
    node: Node, walks: dict[int, list[Phase]]
) -> None:
    """From the first bytes to the end, each phase once; the client's answer to the close changes none."""
    async with node.dial("&channels=prices.A") as wire:
        assert await wire.shake() == 101
        await wire.message("subscribed")
        node.connections[0].end(close_for(Reason.SESSION_REVOKED))
        assert (await wire.ending()).code == 4501
    assert await finished(node, walks[0]) == [*OPENED, *ENDED]


async def test_a_client_that_closes_walks_the_same_way(node: Node, walks: dict[int, list[Phase]]) -> None:
    """The library's answer to the client's close frame is a close frame too: nothing follows it."""
    async with node.dial("&channels=prices.A") as wire:
        assert await wire.shake() == 101
        await wire.message("subscribed")
        wire.send(masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))
        assert (await wire.ending()).code == 1000
    assert await finished(node, walks[0]) == [*OPENED, *ENDED]


async def test_a_lost_network_skips_the_close(node: Node, walks: dict[int, list[Phase]]) -> None:
    """Without a close frame of either side the connection goes from OPEN to LOST."""
    async with node.dial("&channels=prices.A") as wire:
        assert await wire.shake() == 101
        await wire.message("subscribed")
        wire.reset()
    assert await finished(node, walks[0]) == [*OPENED, Phase.LOST, Phase.FINISHED]


async def test_a_refused_handshake_never_opens(node: Node, walks: dict[int, list[Phase]]) -> None:
    """The refusal is the last that is written."""
    async with open_raw_websocket(node.port, "/nowhere", origin=ORIGIN) as wire:
        assert await wire.shake() == 404
    assert (await finished(node, walks[0]))[:3] == [*HANDSHAKE, Phase.CLOSING]


async def test_a_connection_without_a_request_is_counted_and_forgotten(
    node: Node, walks: dict[int, list[Phase]]
) -> None:
    """A client that shuts its side without a byte gets no answer, and its connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    await until(lambda: bool(node.stream._addresses))
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert (await finished(node, walks[0]))[0] is Phase.CLOSING


async def test_a_request_in_the_turn_in_which_its_time_is_over_is_ignored(node: Node) -> None:
    """The handler is cancelled and has not run yet: the request raises no error, and gets no answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    await until(lambda: bool(node.stream._addresses))
    (late,) = node.stream._addresses
    for task in [task for server in node.servers for task in server.handler_tasks]:
        task.cancel()
    late.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert late.phase is not Phase.OPEN
    await node.empty()


async def test_an_error_of_the_relay_closes_the_connection(
    node: Node,
    walks: dict[int, list[Phase]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends with 1011, is logged, and leaves nothing behind: no timer would end it later."""

    def fails(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ClientProtocol, "open", fails)
    with caplog.at_level(logging.ERROR):
        async with node.dial("&channels=prices.A") as wire:
            assert await wire.shake() == 101
            assert (await wire.ending()).code == 1011
        assert await finished(node, walks[0]) == [*OPENED, *ENDED]
    assert "a bug" in caplog.text
