"""The work of a script is bounded, whatever the engine has: while it runs, no claim and no publication is answered.

A script's commands are counted by MONITOR, which shows each one. Those that read or remove a whole key have a table of
their own, with what bounds the key.
"""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from importlib import resources
from typing import Any

import msgspec
import pytest

from relay.broker.base import Position
from relay.core.publications import MAX_PUBLICATION_BYTES, Draft
from relay.engine.batches import MAX_BYTES, MAX_ITEMS
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.families import EngineFamilies
from relay.engine.line import Line
from relay.engine.options import EngineOptions
from relay.engine.scripts import script
from relay.engine.state import EngineState
from relay.state.base import Place
from relay.state.families import Family
from tests.support.engines import Engines, EngineServer
from tests.support.families import Clocks, engine_node

SCRIPTS = sorted(
    path.name.removesuffix(".lua")
    for path in (resources.files("relay.engine") / "lua").iterdir()
    if path.name.endswith(".lua") and path.name != "life.lua"
)
MOST = {
    "publish": 20 + 8 * MAX_ITEMS,
    "claim": 20 + 10 * MAX_ITEMS,
    "beat": 8 + 3 * 64,
    "revoke": 112 + 4 * 64,
    "replaced": 8 + 64,
    "families": 20 + 32 * 16,
    "node": 250,
    "load": 8,
    "control": 8,
    "count": 4,
    "quota": 4,
    "probe": 8,
}
"""The most commands of one call: in a script a command takes some 3 µs, so the longest takes 2 ms."""
WHOLE_KEYS = {
    ("life", "DEL E"): "a hash of five fields",
    ("beat", "HGETALL nodes"): "the nodes of a quarter of an hour",
    ("claim", "HGETALL nodes"): "the nodes of a quarter of an hour",
    ("claim", "HGETALL place"): "a full session of 1,000 places; no more are read in a call after as many",
    ("families", "HGETALL family"): "a log-in: 32 tokens and 32 sessions",
    ("node", "HGETALL nodes"): "the nodes of an hour, which are the answer",
    ("publish", "HGETALL M"): "the nodes of an hour",
}
"""What bounds a key that a script reads or removes as a whole."""
NAMES = {
    ("life", "key"): "E",
    ("beat", "KEYS[2]"): "nodes",
    ("claim", "KEYS[2]"): "nodes",
    ("claim", "key"): "place",
    ("families", "P .. 'f:' .. id"): "family",
    ("families", "P .. 'f:' .. row.id"): "family",
    ("node", "N"): "nodes",
    ("publish", "M"): "M",
}


def test_each_command_on_a_whole_key_has_a_bound() -> None:
    """A script that reads or removes another key as a whole needs a row: UNLINK and a bounded read need none."""
    folder, found = resources.files("relay.engine") / "lua", set()
    pattern = r"'(HGETALL|HKEYS|HVALS|DEL|LRANGE|SMEMBERS|XRANGE|KEYS|SCAN|FLUSHALL)', ([^)]*?)(?:, .*)?\)"
    for name in ["life", *SCRIPTS]:
        for command, key in re.findall(pattern, (folder / f"{name}.lua").read_text()):
            found.add((name, f"{command} {NAMES[name, key]}"))
    assert found == set(WHOLE_KEYS)


class Watch:
    """What the scripts of a server did: `most` commands of one call by script, and of one command."""

    def __init__(self) -> None:
        self.most: Counter[str] = Counter()
        self.most_of: Counter[tuple[str, str]] = Counter()

    def take(self, lines: Iterable[str]) -> None:
        """Take what MONITOR has shown."""
        names = {script(name).sha: name for name in SCRIPTS} | {script(name).text: name for name in SCRIPTS}
        running, each = "", Counter[str]()
        for line in [*lines, '+0 [0 x] "end"']:
            shown = re.match(r'\+\S+ \[\d+ (\S+)\] "(\w+)"(?: "((?:[^"\\]|\\.)*)")?', line)
            assert shown is not None, line
            source, command, argument = shown.groups()
            if source == "lua":
                each[command.lower()] += 1
                continue
            if running:
                self.most[running] = max(self.most[running], each.total())
                for one, count in each.items():
                    self.most_of[running, one] = max(self.most_of[running, one], count)
            each = Counter()
            text = (argument or "").replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
            running = names.get(text, "") if command.upper() in ("EVAL", "EVALSHA") else ""


@contextlib.asynccontextmanager
async def watched(server: EngineServer) -> AsyncIterator[Watch]:
    """Watch the scripts until the block ends."""
    watch, end = Watch(), f"end-{time.monotonic_ns()}"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 24)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    lines: list[str] = []

    async def read() -> None:
        while end not in (line := (await reader.readline()).decode()):
            lines.append(line)

    reading = asyncio.create_task(read())
    yield watch
    await asyncio.to_thread(server.run, "ECHO", end)
    await asyncio.wait_for(reading, 30)
    writer.close()
    watch.take(lines)


async def publications(options: EngineOptions, _server: EngineServer) -> None:
    """Messages with all that they may have, to channels that are new, known, removed, and new again."""
    broker = EngineBroker(
        options, max_channels=1000, history_of=lambda _: KeptHistory(messages=10, seconds=60)
    )
    try:
        await broker.load()
        for turn in range(3):
            for version in (1, 2):
                await asyncio.gather(
                    *(
                        broker.publish(
                            Draft(
                                channel=f"c{number}",
                                data=msgspec.Raw(b"1"),
                                version=version,
                                idempotency_key=f"{turn}.{version}",
                            ),
                            ts=1,
                        )
                        for number in range(3 * MAX_ITEMS)
                    )
                )
            await asyncio.gather(*(broker.remove(f"c{number}") for number in range(3 * MAX_ITEMS)))
    finally:
        await broker.aclose()


async def connections(options: EngineOptions, server: EngineServer) -> None:
    """Claims of sessions that are full, small and large ones, and the places that a node writes back."""
    state = await EngineState.open(options)
    opened = [(f"s{number}", f"o{number}", time.time()) for number in range(200)]
    written = asyncio.Event()

    def places(size: int) -> Iterable[Any]:
        yield from (opened[first : first + size] for first in range(0, len(opened), size))
        written.set()

    async def claim(session: str, connection: str, most: int) -> None:
        at = time.time() + 60
        place = Place(session=session, connection=connection, most=most, replaces=True)
        assert await state.claim(f"{session}.{connection}", expires_at=at + 30, issued_at=at, place=place)

    async def fill(kind: str, most: int, first: int, count: int) -> None:
        numbers = range(first, first + count)
        await asyncio.gather(*(claim(f"{kind}{s}", f"c{n}", most) for s in range(MAX_ITEMS) for n in numbers))

    try:
        await fill("small", 3, 0, 3)
        await fill("small", 3, 3, 1)
        await claim("large0", "first", 600)
        (prefix,) = {
            name.decode().rpartition(":")[0] for name in server.run("KEYS", f"{options.prefix}:*:c:*:large0")
        }
        node = state.claims.shards[0].places.node
        fields = [text for n in range(5000) for text in (f"c{n}", f"o {n} {time.time() + 900:.3f} {node}")]
        for number in range(MAX_ITEMS):
            server.run("HSET", f"{prefix}:large{number}", *fields[:1200])
        server.run("HSET", f"{prefix}:huge0", *fields)
        async with watched(server) as watch:
            await fill("large", 600, 600, 1)
            await asyncio.gather(*(claim("huge0", f"new{number}", 5000) for number in range(10)))
        assert watch.most_of["claim", "hgetall"] <= 1 + 2, "at most two of these sessions are read in a call"
        assert watch.most_of["claim", "hscan"] in (1, 2), "a part of a session, and once more at its end"
        state.claims.connect(places, lambda _session, _connection: False)
        server.run("DEL", f"{options.prefix}:{{j.0}}:n")  # this node was not heard of
        await asyncio.wait_for(written.wait(), 30)
        for number in range(200):
            state.claims.leave(f"s{number}", f"o{number}")
        await state._tell_replaced([f"c{number} s" for number in range(64)])
    finally:
        await state.aclose()


async def revocations(options: EngineOptions, server: EngineServer) -> None:
    """More than fit into one call, which a node writes back, while as many have ended long ago."""
    old = [text for number in range(500) for text in (number, f"old{number}")]
    server.run("ZADD", f"{options.prefix}:{{c}}:u", *old)
    known = {f"user:{number}": (1.0, time.time() + 1000) for number in range(200)}
    await (await EngineState.open(options, known=known)).aclose()


async def logins(options: EngineOptions, server: EngineServer) -> None:
    """A log-in with as many tokens and sessions as it may have, and 100 of a user that end and are written back."""
    async with engine_node(options, Clocks()) as node:
        await node.begin("t0")
        for turn in range(40):
            family = Family(session=f"s{turn}", subject="u1", logged_in_at=1000)
            lease = await node.lease(f"t{turn}")
            assert await node.complete(f"t{turn}", lease, f"t{turn + 1}", family=family)
        for number in range(100):
            await node.begin(f"u{number}", Family(session=f"r{number}", subject="u2", logged_in_at=1000))
        await node.store.end_sessions(subject="u2")
        await node.store.end_sessions(subject="u1")
        server.run("HSET", f"{options.prefix}:{{f.0}}:e", "replid", "0" * 40)  # another life
        await node.store.find(b"nobody")  # which the node sees, and writes back
        assert isinstance(node.store, EngineFamilies)
        await node.store._restore()


async def others(options: EngineOptions, server: EngineServer) -> None:
    """The row of a node beside 5,000 heads that are over, and scripts of one key."""
    heads = f"{options.prefix}:heads"
    over = [text for number in range(5000) for text in (f"n{number}", f"1 {'0' * 64} 1 2 1 host:/log")]
    server.run("HSET", heads, *over)
    line = Line(options, "c", name="test", answer_within_s=10)
    try:
        row = ("n", "5", 1, 1, 1, 0, "{}", 0, "", 1, "0" * 64, 60, "host:/log")
        for number in range(20):
            await line.call(script("node"), [f"{options.prefix}:nodes", heads], [*row[:9], number, *row[10:]])
        for _ in range(3):
            await line.call(script("count"), [f"{options.prefix}:count"], ["hit", 2, 60, ""])
        await line.call(script("quota"), [f"{options.prefix}:quota"], ["", 10, 10, 1, 100, 100, 10])
        await line.call(script("probe"), [f"{options.prefix}:probe"])
    finally:
        await line.aclose()
    assert server.run("HLEN", heads) < 4900


@pytest.mark.parametrize("load", [publications, connections, revocations, logins, others])
async def test_a_call_has_a_bounded_number_of_commands(
    engines: Engines, load: Callable[[EngineOptions, EngineServer], Awaitable[None]]
) -> None:
    """Also where a node writes back what the engine has lost, and where old things are removed."""
    server = engines("redis")
    async with watched(server) as watch:
        await load(server.options(log_bytes=4096), server)
    assert watch.most
    assert {name: most for name, most in watch.most.items() if most > MOST[name]} == {}


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([150] * 1000, range(16, 1001)),
        ([1536] * 256, range(4, 257)),
        ([8192] * 100, range(9, 101)),
        ([MAX_BYTES // 2 + 1] * 9, range(9, 10)),
        ([65_000, 10, 40_000, 60_000, 30_000, 6_000, 65_000, 65_000, 10], range(5, 10)),
    ],
)
async def test_a_batch_has_64_messages_and_96_kib_at_most(
    engines: Engines, sizes: list[int], calls: range
) -> None:
    """An entry of the log is what one call of the script has published. All are there, in their order."""
    options = engines("redis").options()
    broker = EngineBroker(options, max_channels=10)
    try:
        drafts = [
            Draft(channel="c", data=msgspec.Raw(b"%0*d" % (size, number)))
            for number, size in enumerate(sizes)
        ]
        await asyncio.gather(*(broker.publish(draft, ts=1) for draft in drafts))
        (shard,) = options.shards("t")
        entries = await broker.shards[0]._line.read("XRANGE", options.key(shard, "l"), "-", "+")
    finally:
        await broker.aclose()
    batches = [[value.split(b" ", 4)[4] for value in fields[3::2]] for _, fields in entries]
    assert [data for batch in batches for data in batch] == [bytes(draft.data) for draft in drafts]
    assert max(map(len, batches)) <= MAX_ITEMS
    assert max(sum(map(len, batch)) for batch in batches) <= MAX_BYTES
    assert len(batches) in calls


def test_the_largest_message_fits_into_a_batch() -> None:
    """A batch has at least one, whatever its size: a larger bound of messages would break that of batches."""
    assert MAX_PUBLICATION_BYTES <= MAX_BYTES


async def test_a_long_history_is_read_in_parts(engines: Engines) -> None:
    """All of it comes, also if the last part is full."""
    broker = EngineBroker(
        engines("redis").options(),
        max_channels=10,
        history_of=lambda _: KeptHistory(messages=999, seconds=60),
    )
    try:
        draft = Draft(channel="c", data=msgspec.Raw(b"1"))
        await asyncio.gather(*(broker.publish(draft, ts=1) for _ in range(300)))
        for after in (0, 300 - 256, 299):
            found = await broker.history("c", after=Position(epoch=broker.epoch, seq=after))
            assert found is not None
            assert [one.seq for one in found] == list(range(after + 1, 301))
    finally:
        await broker.aclose()
