"""The places of sessions in an engine: what happens to them when a reply, all data or a node is lost.

The second table takes one control away and does a fault, which has to be seen. So each control is needed.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from relay.core.closes import CloseCode
from relay.core.errors import UnavailableError
from relay.engine import claims, places
from relay.engine.places import EnginePlaces
from relay.engine.scripts import Script
from relay.engine.state import EngineState
from relay.state.base import NoPlaceError, Place
from tests.support.engines import KINDS, Engines, EngineServer, LossyLink, lossy_link, until
from tests.support.session_places import MOST, NOW, Node, Opened, two_nodes


@dataclass
class Setting:
    """Two nodes, each over a link of its own, and the server. `within_s` limits what is waited for."""

    one: Node
    other: Node
    links: list[LossyLink]
    server: EngineServer
    prefix: str
    within_s: float

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is true."""
        await until(condition, within_s=self.within_s)

    async def fill(self) -> list[Any]:
        """Open as many connections of the session as there may be, on the other node."""
        return [await self.other.open("s") for _ in range(MOST)]

    def flush(self) -> None:
        """Remove all keys of this test, as FLUSHALL does for the whole server."""
        text = "redis.call('DEL', unpack(redis.call('KEYS', ARGV[1])))"
        self.server.run("EVAL", text, 0, f"{self.prefix}:*")

    def held(self) -> set[str]:
        """Return the connections that the engine counts in the session, in its newest life."""
        keys = self.server.run("KEYS", f"{self.prefix}:{{j.0}}:c:*:s")
        return {name.decode() for name in self.server.run("HKEYS", max(keys))} if keys else set()

    async def is_full(self) -> bool:
        """Try to open one more."""
        try:
            await self.one.open("s")
        except NoPlaceError:
            return True
        return False


@contextlib.asynccontextmanager
async def two_linked_nodes(server: EngineServer, *, replace: bool, within_s: float) -> AsyncIterator[Setting]:
    """Run them."""
    options = server.options()
    async with contextlib.AsyncExitStack() as stack:
        links = [await stack.enter_async_context(lossy_link(server.port)) for _ in range(2)]
        each = [server.options(f"redis://127.0.0.1:{link.port}", prefix=options.prefix) for link in links]
        one, other = await stack.enter_async_context(two_nodes(*each, replace=replace))
        yield Setting(one, other, links, server, options.prefix, within_s)


Fault = Callable[[Setting], Awaitable[None]]


async def flushed(nodes: Setting) -> None:
    """All data is lost: each node writes back what it has. What has gone meanwhile is not written back."""
    opened = await nodes.fill()
    nodes.flush()
    nodes.other.registry.remove(opened[0])
    await nodes.until(lambda: nodes.held() == {str(opened[n].id) for n in (1, 2)})
    await nodes.other.open("s")
    assert await nodes.is_full()


async def killed(nodes: Setting) -> None:
    """A node is killed: who comes at once waits until it is certain that it gives no sign of life."""
    await nodes.fill()
    nodes.other.engine.claims.shards[0].places.task.stop()  # nothing of it lives on
    for _ in range(MOST):
        assert not await nodes.is_full()
    assert await nodes.is_full()


async def stopped(nodes: Setting) -> None:
    """A node stops: its places are free at once."""
    leaving = Node(await EngineState.open(nodes.server.options(prefix=nodes.prefix)), replace=False)
    for _ in range(MOST):
        await leaving.open("s")
    await leaving.engine.aclose()
    await asyncio.wait_for(nodes.one.open("s"), nodes.within_s)


async def gone_while_away(nodes: Setting) -> None:
    """A connection ends while the engine does not answer: its place is free when it answers again."""
    opened = await nodes.fill()
    link = nodes.links[1]
    link.swallows = {"requests"}
    nodes.other.registry.remove(opened[0])
    with pytest.raises(UnavailableError):  # until the end of the place was given up
        await nodes.other.open("another")
    link.swallows = set()
    link.silence()
    await nodes.until(lambda: str(opened[0].id) not in nodes.held())


async def lost_reply(nodes: Setting) -> None:
    """The reply to a claim that replaces is lost: the replaced connection ends, and no other one."""
    opened = await nodes.fill()
    nodes.links[0].lose_reply_to(vars(claims)["script"]("claim").sha.encode())
    newest = await nodes.one.open("s")
    assert nodes.links[0].lost == 1
    await nodes.until(lambda: opened[0].code == CloseCode.REPLACED)
    assert [one.code for one in (*opened[1:], newest)] == [None] * MOST


async def lost_sign_of_life(nodes: Setting) -> None:
    """The reply to the places that a node writes back is lost: they are written once more."""
    nodes.links[1].lose_reply_to(vars(claims)["script"]("beat").sha.encode())
    await nodes.until(lambda: nodes.links[1].lost)
    await flushed(nodes)


async def lost_reply_to_the_log(nodes: Setting) -> None:
    """The reply to what the other node is told is lost: it is told twice, and one connection ends."""
    opened = await nodes.fill()
    nodes.links[0].lose_reply_to(vars(claims)["script"]("replaced").sha.encode())
    newest = await nodes.one.open("s")
    await nodes.until(lambda: nodes.links[0].lost and opened[0].code == CloseCode.REPLACED)
    assert [one.code for one in (*opened[1:], newest)] == [None] * MOST


async def not_told(nodes: Setting) -> None:
    """A node never hears that a connection of it was replaced: it hears when it writes its places again."""
    opened = await nodes.fill()
    reader: Any = nodes.other.engine._reader
    accept, reader._accept = reader._accept, lambda *_: None
    newest = await nodes.one.open("s")
    position = reader.position
    await nodes.until(lambda: reader.position > position)
    reader._accept = accept
    nodes.other.engine.claims.shards[0].places._write_due = 0.0
    await nodes.until(lambda: opened[0].code == CloseCode.REPLACED)
    assert [one.code for one in (*opened[1:], newest)] == [None] * MOST


async def replaced_in_its_handshake(nodes: Setting) -> None:
    """A connection is replaced between its claim and its registration: it ends as soon as it is registered."""
    late: Any = Opened()
    await nodes.one.claim(late, "s", "late")
    await nodes.fill()
    await nodes.until(lambda: nodes.one.registry._replaced)
    nodes.one.add(late, "s")
    assert late.code == CloseCode.REPLACED
    assert not nodes.one.registry.connections


REFUSING: list[Fault] = [flushed, lost_sign_of_life, killed, stopped, gone_while_away]
REPLACING: list[Fault] = [lost_reply, lost_reply_to_the_log, not_told, replaced_in_its_handshake]


@pytest.fixture(autouse=True)
def _sure_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "SURE_AFTER_S", 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [*REFUSING, *REPLACING], ids=lambda one: one.__name__)
async def test_the_limit_holds_through_a_fault(kind: str, fault: Fault, engines: Engines) -> None:
    """No place is given twice, and none is lost."""
    async with two_linked_nodes(engines(kind), replace=fault in REPLACING, within_s=30) as nodes:
        await fault(nodes)


@pytest.mark.parametrize("kind", KINDS)
async def test_sessions_leave_nothing_in_the_engine(kind: str, engines: Engines) -> None:
    """Neither do those of a node that was killed, for longer than a quarter of an hour."""
    async with two_linked_nodes(engines(kind), replace=True, within_s=30) as nodes:
        both = (nodes.one, nodes.other)
        opened = [await node.open("s") for node in both for _ in range(MOST)]
        (key,) = nodes.server.run("KEYS", f"{nodes.prefix}:{{j.0}}:c:*")
        assert 0 < nodes.server.run("PTTL", key) <= places._WRITE_AGAIN_S * 3000
        await nodes.until(lambda: sum(connection.code is None for connection in opened) == MOST)
        for connection in opened:
            for node in both:
                node.registry.remove(connection)
        await nodes.until(lambda: not nodes.held())


LARGE = 3000
"""Places of a session, above the number that is read at once."""


def fill_one(nodes: Setting, session: str, count: int, node: str) -> set[str]:
    """Give a session so many places, the older the smaller their numbers. Return their connections."""
    generation = nodes.one.engine.claims.shards[0].places.generation
    now = time.time()
    held = {f"c{number}": f"o {now - count + number} {now + 900} {node}" for number in range(count)}
    key = f"{nodes.prefix}:{{j.0}}:c:{generation}:{session}"
    nodes.server.run("HSET", key, *(text for place in held.items() for text in place))
    return set(held)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_limit_of_a_very_large_session_holds(kind: str, engines: Engines) -> None:
    """Of its places a thousand are read. The oldest of them is replaced, and those of a node that is gone are freed."""
    async with two_linked_nodes(engines(kind), replace=True, within_s=30) as nodes:
        node = nodes.other.engine.claims.shards[0].places.node

        async def claim(session: str, connection: str, *, replaces: bool = True) -> list[str]:
            place = Place(session=session, connection=connection, most=LARGE, replaces=replaces)
            told: list[str] = []

            def on_replaced(_session: str, name: str) -> bool:
                told.append(name)
                return True

            for one in (nodes.one, nodes.other):
                one.engine.claims.connect(lambda _size: (), on_replaced)
            assert await nodes.one.engine.claim(connection, expires_at=NOW + 30, issued_at=NOW, place=place)
            return told

        held = fill_one(nodes, "s", LARGE, node)
        for number in range(20):
            told = await claim("s", f"new{number}")
            (replaced,) = set(told) & held
            assert int(replaced[1:]) < LARGE - 500, "not one of the newest"
            held.remove(replaced)
        with pytest.raises(NoPlaceError):
            await claim("s", "refused", replaces=False)
        nodes.links[0].lose_reply_to(vars(claims)["script"]("claim").sha.encode())
        assert len(set(await claim("s", "repeated")) & held) == 1
        fill_one(nodes, "gone", LARGE, "killed")
        for number in range(3):
            assert await claim("gone", f"after{number}", replaces=False) == []


# each control taken away


def without(monkeypatch: pytest.MonkeyPatch, name: str, text: str, instead: str) -> None:
    """Change a part of a script."""
    found: Callable[[str], Script] = vars(claims)["script"]
    real = found(name)
    assert text in real.text, f"{name}.lua has no {text!r}"
    changed = real.text.replace(text, instead)
    sha = hashlib.sha1(changed.encode(), usedforsecurity=False).hexdigest()
    for module in (claims, places):
        monkeypatch.setattr(
            module, "script", lambda wanted: Script(name, changed, sha) if wanted == name else found(wanted)
        )


def no_write_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node does not write its places again."""
    nothing = property(lambda _: lambda _size: (), lambda *_: None)
    monkeypatch.setattr(EnginePlaces, "open_places", nothing, raising=False)


def no_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place counts, whatever is heard of its node."""
    without(monkeypatch, "claim", "if node == ARGV[4] then return true end", "if true then return true end")


def no_certainty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is refused at once."""
    without(monkeypatch, "claim", "elsewhere and 'o' or 'f'", "'f'")


def no_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that stops says nothing."""
    without(monkeypatch, "beat", "redis.call('HDEL', KEYS[2], node)\n  return", "return")
    monkeypatch.setattr(claims, "SURE_AFTER_S", 20.0)


def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a place is told once."""
    monkeypatch.setattr(EnginePlaces, "_was_told", lambda *_: None)


def no_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced connection is simply removed from its session."""
    mark = "written[#written + 1] = 'x ' .. times .. place.connection .. place.took[i]"
    without(
        monkeypatch,
        "claim",
        f"written[#written + 1] = connection\n    {mark}",
        "redis.call('HDEL', place.key, connection)",
    )


def no_names_of_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place does not tell which connections it has replaced."""
    without(monkeypatch, "claim", "{ARGV[4], unpack(place.replaced)}", "{ARGV[4]}")


def no_marks_of_reservations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is replaced during its handshake is not remembered."""
    monkeypatch.setattr("relay.stream.registry.Registry._end_if_replaced", lambda *_: None)


Remove = Callable[[pytest.MonkeyPatch], None]

TABLE: list[tuple[Fault, Remove]] = [
    (flushed, no_write_back),
    (killed, no_signs_of_life),
    (killed, no_certainty),
    (stopped, no_farewell),
    (gone_while_away, no_second_try),
    (lost_reply, no_names_of_replaced),
    (not_told, no_marks),
    (replaced_in_its_handshake, no_marks_of_reservations),
]


@pytest.mark.parametrize(("fault", "remove"), TABLE, ids=lambda one: one.__name__)
async def test_each_control_is_needed(
    fault: Fault, remove: Remove, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the same fault gives a place twice, or loses one."""
    remove(monkeypatch)
    # what never comes is waited for: the longer, the more certain that it does not come
    async with two_linked_nodes(engines("redis"), replace=fault in REPLACING, within_s=2) as nodes:
        with pytest.raises((AssertionError, TimeoutError)):
            await fault(nodes)
