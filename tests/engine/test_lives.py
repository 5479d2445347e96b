"""The lives of the engine's data: no two have the same generation, whichever node begins them."""

import contextlib
import hashlib
import time
from pathlib import Path

import pytest

from relay.engine.scripts import Script, script
from relay.engine.state import EngineState
from tests.support.engines import EngineServer, engine_server, until
from tests.support.moved_clock import MovedClock

HOUR = 3600


@pytest.mark.parametrize("ahead", [0, -HOUR], ids=["right", "an hour back"])
def test_each_loss_begins_another_generation(tmp_path: Path, ahead: int) -> None:
    """Also of a hundred losses within a second, after each of which the first node knows none of the others."""
    clock = MovedClock(tmp_path)
    with engine_server("redis", tmp_path, environment=clock.environment) as engine, engine.client() as client:

        def generation(seen: int) -> int:
            text, keys = script("control").text, ("{c}:e", "{c}:l")
            answer = client.execute_command("EVAL", text, 2, *keys, seen, time.monotonic_ns())
            return int(answer[0])

        first = generation(seen=0)
        clock.move(ahead)
        lives = [first]
        for _ in range(100):
            client.execute_command("FLUSHALL")
            lives.append(generation(seen=first))
        assert len(set(lives)) == len(lives)
        assert min(lives[1:]) > first
        assert generation(seen=lives[-1]) == lives[-1]


@pytest.mark.parametrize("is_removed", [False, True], ids=["", "without"])
async def test_a_node_notices_a_loss_after_which_another_one_was_the_first_to_write(
    own_engine: EngineServer, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    """The second one within a second, and the log is as long as the one that the node has read.

    Without generations of their own, a revocation is lost.
    """
    if is_removed:
        monkeypatch.setattr("relay.engine.state.script", _script_of_a_coarse_clock)
    options = own_engine.options()
    began = int(time.time()) - HOUR
    replid = own_engine.run("INFO", "replication")["master_replid"]
    life = {"replid": replid, "g": began, "epoch": "first", "since": began}
    own_engine.run("HSET", options.key("c", "e"), *(part for pair in life.items() for part in pair))
    async with contextlib.AsyncExitStack() as stack:
        node = await EngineState.open(options)
        stack.push_async_callback(node.aclose)
        own_engine.run("FLUSHALL")
        await node.revoke("known", at=time.time(), until=time.time() + 600)
        await until(lambda: node._reader.position == (node.generation, 1) and node.generation > began)
        own_engine.run("FLUSHALL")
        other = await EngineState.open(options)
        stack.push_async_callback(other.aclose)
        await other.revoke("other", at=time.time(), until=time.time() + 600)
        with pytest.raises(TimeoutError) if is_removed else contextlib.nullcontext():
            await until(lambda: other.revoked_at("known"), within_s=1.5 if is_removed else 30)


def _script_of_a_coarse_clock(name: str) -> Script:
    """Return a script in whose lives two losses within ten minutes have the same time."""
    real = script(name)
    precise = "g = now * 1000000 + tonumber(time[2])"
    assert precise in real.text
    text = real.text.replace(precise, "g = now - now % 600")
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
