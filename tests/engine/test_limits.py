"""Request limits that two nodes share, and an engine that does not answer."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import structlog

from relay.core.log_limit import EVERY_S
from relay.engine import limits
from relay.engine.limits import EngineLimits
from tests.support.engines import WITHIN_S, EngineServer, lossy_link


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait for an engine on a busy machine."""
    monkeypatch.setattr(limits, "ANSWER_WITHIN_S", WITHIN_S)


@pytest.fixture
async def nodes(own_engine: EngineServer) -> AsyncIterator[tuple[EngineLimits, EngineLimits]]:
    """The limits of two nodes."""
    options = own_engine.options()
    both = EngineLimits(options), EngineLimits(options)
    yield both
    for one in both:
        await one.aclose()


@pytest.mark.usefixtures("patient")
async def test_a_limit_holds_over_two_nodes(nodes: tuple[EngineLimits, EngineLimits]) -> None:
    """Of a hundred requests at once over both, as many as the limit says are allowed; other keys are not touched."""
    both = [one.counts("tokens_per_session", "10/hour") for one in nodes]
    waits = await asyncio.gather(*(both[n % 2].hit("session") for n in range(100)))
    assert waits.count(0.0) == 10
    assert all(1 <= wait <= 3600 for wait in waits if wait)
    await both[0].give_back("session")
    assert await both[1].hit("session") == 0.0
    assert await both[0].hit("session") > 0.0
    assert await both[0].hit("another") == 0.0
    assert not nodes[0].alone


@pytest.mark.usefixtures("patient")
async def test_a_request_whose_reply_was_lost_is_counted_once(
    own_engine: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not sent again: this node decides, and the engine has it."""
    monkeypatch.setattr(limits, "_AGAIN_AFTER_S", -WITHIN_S)  # the engine is asked again at once
    async with lossy_link(own_engine.port) as link:
        node = EngineLimits(own_engine.options(f"redis://127.0.0.1:{link.port}"))
        counts = node.counts("tokens_per_session", "3/hour")
        assert await counts.hit("s") == 0.0
        link.lose_reply_to(b"hit")
        assert await counts.hit("s") == 0.0
        assert (link.lost, node.alone) == (1, 1)
        assert await counts.hit("s") == 0.0
        assert await counts.hit("s") > 0.0
        assert node.alone == 1
        await node.aclose()


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_a_node_counts_alone_while_the_engine_is_away(
    nodes: tuple[EngineLimits, EngineLimits], own_engine: EngineServer, fault: str
) -> None:
    """Its own window knows what it let through before; it is counted, logged once a minute, and ends by itself."""
    counts = nodes[0].counts("tokens_per_session", "3/hour")
    assert [await counts.hit("s"), await counts.hit("s")] == [0.0, 0.0]
    if fault == "killed":
        own_engine.stop()
    else:
        assert own_engine.process is not None
        own_engine.process.send_signal(signal.SIGSTOP)
    with structlog.testing.capture_logs() as logs:
        waits = [await counts.hit("s") for _ in range(20)]
        assert [wait == 0.0 for wait in waits] == [True] + [False] * 19
        assert nodes[0].alone == 20
    assert EVERY_S >= 60
    assert [line["event"] for line in logs].count("limits count on this node alone") == 1
    if fault == "killed":
        own_engine.start()
    else:
        assert own_engine.process is not None
        own_engine.process.send_signal(signal.SIGCONT)

    async def shared() -> bool:
        before = nodes[0].alone
        await counts.hit("another")
        return nodes[0].alone == before

    async with asyncio.timeout(30):
        while not await shared():  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.05)
