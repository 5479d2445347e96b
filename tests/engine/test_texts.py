"""Texts of callers in the engine: each is kept as it is, whatever is in it, and no task of a node ends."""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from msgspec import Raw

from relay.core.publications import Draft
from relay.engine.broker import EngineBroker
from relay.engine.families import EngineFamilies
from relay.engine.limits import EngineLimits
from relay.engine.options import EngineOptions
from relay.engine.quotas import EngineQuotas
from relay.engine.state import EngineState
from relay.limits.quotas import Quota, QuotaTerms
from relay.state.base import NoPlaceError, Place
from relay.state.families import Family
from tests.support.engines import Engines, until

FUTURE = time.time() + 3600
TEXTS = {
    "half of a surrogate pair": "a\ud800",
    "the other half": "\udcff b",
    "a NUL": "a\x00b",
    "line ends": "\r\n*1\r\n$4\r\nPING\r\n",
    "spaces": "  1 2  ",
    "no letter of ASCII": "é😀\u202e",
    "a long text": "x" * 5000,
    "something of Lua": "%s %d]]'",
}


@dataclass
class Node:
    """All parts of a node that get texts."""

    options: EngineOptions
    state: EngineState
    families: EngineFamilies
    limits: EngineLimits
    quotas: EngineQuotas
    broker: EngineBroker

    @property
    def restarts(self) -> int:
        """How often a task failed."""
        parts = (self.state, self.families, self.limits, self.quotas, self.broker)
        return sum(part.restarts for part in parts)


@pytest.fixture
async def node(engines: Engines) -> AsyncIterator[Node]:
    """A node."""
    options = engines("redis").options()
    async with AsyncExitStack() as stack:
        state = await EngineState.open(options)
        stack.push_async_callback(state.aclose)
        families = await EngineFamilies.open(options)
        stack.push_async_callback(families.aclose)
        limits, quotas, broker = (
            EngineLimits(options),
            EngineQuotas(options),
            EngineBroker(options, max_channels=9),
        )
        for part in (limits, quotas, broker):
            stack.push_async_callback(part.aclose)
        yield Node(options, state, families, limits, quotas, broker)


async def revocation(node: Node, text: str) -> None:
    """A target, which a node that starts later knows, and one that runs."""
    later = await EngineState.open(node.options)
    await node.state.revoke(f"sub:{text}", at=5.0, until=FUTURE)
    await until(lambda: later.revoked_at(f"sub:{text}") == 5.0)
    await later.aclose()
    later = await EngineState.open(node.options)
    assert later.revoked_at(f"sub:{text}") == 5.0
    await later.aclose()


async def token(node: Node, text: str) -> None:
    """The id of a token."""
    assert await node.state.claim(text, expires_at=FUTURE + 30, issued_at=FUTURE)
    assert not await node.state.claim(text, expires_at=FUTURE + 30, issued_at=FUTURE)


async def place(node: Node, text: str) -> None:
    """The session of a place, whose connection is replaced."""
    ended: list[tuple[str, str]] = []

    def end(session: str, connection: str) -> bool:
        ended.append((session, connection))
        return True

    node.state.claims.connect(lambda _size: (), end)

    async def take(connection: str, *, replaces: bool) -> bool:
        wanted = Place(session=text, connection=connection, most=1, replaces=replaces)
        jti = f"{connection} {text}"
        return await node.state.claim(jti, expires_at=FUTURE + 30, issued_at=FUTURE, place=wanted)

    assert await take("one", replaces=True)
    with pytest.raises(NoPlaceError):
        await take("two", replaces=False)
    assert await take("three", replaces=True)
    assert ended == [(text, "one")]
    node.state.claims.accept(f"three {text}")
    assert ended[1:] == [(text, "three")]


async def limit(node: Node, text: str) -> None:
    """The key of a limit."""
    counts = node.limits.counts("account", "1/hour")
    assert await counts.hit(text) == 0
    assert await counts.hit(text) > 0
    assert node.limits.alone == 0


async def publisher(node: Node, text: str) -> None:
    """The name of a publisher with a quota."""
    quota = Quota(QuotaTerms(rate="10/hour"), now=time.monotonic())
    quota.charge(time.monotonic(), 1)
    node.quotas.quotas = lambda: {text: quota}
    await node.quotas.share()
    assert quota.used == (0, 0)


async def log_in(node: Node, text: str) -> None:
    """The user of a log-in. Its session and its tokens are hashes."""
    token = secrets.token_bytes(16)
    family = Family(session=token.hex(), subject=text, logged_in_at=1.0)
    await node.families.begin(token, family, address="::1", keep_s=60)
    assert await node.families.find(token) == family
    assert await node.families.end_sessions(subject=text) == [family.session]


async def publication(node: Node, text: str) -> None:
    """The idempotency key of a publication. The names of channels have a form of their own."""
    draft = Draft(channel="a", data=Raw(b"1"), idempotency_key=text)
    first = await node.broker.publish(draft, ts=1)
    second = await node.broker.publish(draft, ts=1)
    assert first != second
    assert "DUPLICATE" in repr(second)


ENTRIES: list[Callable[[Node, str], Awaitable[None]]] = [
    revocation,
    token,
    place,
    limit,
    publisher,
    log_in,
    publication,
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda one: one.__name__)
async def test_any_text_is_kept_as_it_is(node: Node, entry: Callable[[Node, str], Awaitable[None]]) -> None:
    """It stands for itself, and everything else goes on."""
    for text in TEXTS.values():
        await entry(node, text)
    assert node.restarts == 0
