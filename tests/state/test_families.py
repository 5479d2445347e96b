"""Refresh families: one caller at the backend, successors, spent tokens, ends. Every adapter passes these tests.

Two nodes share one store, as two processes do.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from relay.state.families import (
    KEPT_TOKENS,
    Family,
    Over,
    Redeem,
    Refused,
    Succeeded,
    Taken,
    Wait,
    Young,
)
from tests.support.engines import ENGINES, Engines
from tests.support.families import (
    DAY_S,
    KEEP_S,
    LOGIN,
    Clocks,
    Node,
    engine_node,
    key,
    sqlite_node,
)

Open = Callable[[], contextlib.AbstractAsyncContextManager[Node]]


@pytest.fixture
def clocks() -> Clocks:
    """The clocks of all nodes."""
    return Clocks()


@pytest.fixture(params=["sqlite", *ENGINES])
def open_node(request: pytest.FixtureRequest, tmp_path: Path, clocks: Clocks, engines: Engines) -> Open:
    """What opens one more node on the store of the test."""
    if request.param == "sqlite":
        return lambda: sqlite_node(tmp_path, clocks)
    options = engines.options(request.param)
    return lambda: engine_node(options, clocks)


@pytest.fixture
async def nodes(open_node: Open) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes."""
    async with open_node() as one, open_node() as other:
        yield one, other


@pytest.fixture
def node(nodes: tuple[Node, Node]) -> Node:
    """One of them."""
    return nodes[0]


async def test_one_of_a_hundred_gets_the_lease(nodes: tuple[Node, Node]) -> None:
    """Over both processes; the others wait."""
    await nodes[0].begin()
    taken = await asyncio.gather(*(nodes[n % 2].take("t0") for n in range(100)))
    assert sum(isinstance(one, Redeem) for one in taken) == 1
    assert sum(isinstance(one, Wait) for one in taken) == 99


async def test_a_lease_names_the_log_in(node: Node) -> None:
    """The family of the log-in comes with the lease."""
    await node.begin()
    taken = await node.take("t0")
    assert isinstance(taken, Redeem)
    assert taken.family == LOGIN


async def test_an_unknown_token_is_leased_alone(nodes: tuple[Node, Node]) -> None:
    """If the store was lost, the token goes to the backend, and still once only."""
    first, second = await nodes[0].take("t0"), await nodes[1].take("t0")
    assert isinstance(first, Redeem)
    assert first.family is None
    assert isinstance(second, Wait)
    assert await nodes[0].store.find(key("t0")) is None
    assert await nodes[0].complete("t0", first.lease, "t1")
    assert await nodes[1].store.find(key("t0")) == LOGIN


async def test_a_result_of_an_unknown_session_is_kept(node: Node) -> None:
    """Its family stays unknown until a later refresh tells whose it is."""
    assert await node.complete("t0", await node.lease("t0"), "t1", family=None)
    assert await node.store.find(key("t1")) is None
    taken = await node.take("t0")
    assert isinstance(taken, Succeeded)
    assert taken.sealed == b"for t1"


async def test_a_lease_that_ran_out_goes_to_the_next(nodes: tuple[Node, Node], clocks: Clocks) -> None:
    """A process that was killed during its call does not block the session; its late result is thrown away."""
    await nodes[0].begin()
    late = await nodes[0].lease("t0")
    clocks.go_on(6.1)
    lease = await nodes[1].lease("t0")
    assert not await nodes[0].complete("t0", late, "t1")
    assert await nodes[1].complete("t0", lease, "t2")


async def test_a_lease_that_is_given_back_goes_to_the_next(nodes: tuple[Node, Node]) -> None:
    """After a call without an answer the next caller may try. A foreign lease gives nothing back."""
    await nodes[0].begin()
    lease = await nodes[0].lease("t0")
    await nodes[1].store.release(key("t0"), b"another")
    assert isinstance(await nodes[1].take("t0"), Wait)
    await nodes[0].store.release(key("t0"), lease)
    assert isinstance(await nodes[1].take("t0"), Redeem)


async def test_an_old_token_is_answered_with_the_newest(nodes: tuple[Node, Node]) -> None:
    """Whichever of its predecessors comes, as long as the browser has not shown a newer one."""
    await nodes[0].begin()
    await nodes[0].rotate("t0", "t1")
    taken = await nodes[1].take("t0")
    assert isinstance(taken, Succeeded)
    assert (taken.sealed, taken.sealed_for, taken.newest) == (b"for t1", key("t0"), key("t1"))
    again = await nodes[1].take("t1", is_shown=False)
    assert isinstance(again, Redeem)
    assert await nodes[1].complete("t1", again.lease, "t2")
    taken = await nodes[0].take("t0")
    assert isinstance(taken, Succeeded)
    assert (taken.sealed, taken.sealed_for, taken.newest) == (b"for t2", key("t1"), key("t2"))


async def test_an_old_token_is_spent_a_minute_after_its_successor_came(
    nodes: tuple[Node, Node], clocks: Clocks
) -> None:
    """The browser has the new cookie then; until the minute has passed other tabs may still send the old one."""
    await nodes[0].begin()
    await nodes[0].rotate("t0", "t1")
    await nodes[1].store.show(key("t1"))
    clocks.go_on(59)
    assert isinstance(await nodes[0].take("t0"), Succeeded)
    clocks.go_on(2)
    assert await nodes[0].take("t0") == Refused(over=Over.SPENT, family=LOGIN)
    assert isinstance(await nodes[0].take("t1"), Redeem)


@pytest.mark.parametrize(("hours", "expected"), [(23, Succeeded), (25, Refused)])
async def test_a_successor_that_never_came_is_handed_out_for_a_day(
    node: Node, clocks: Clocks, hours: int, expected: type
) -> None:
    """A laptop that was closed during the one answer is not logged out, and a copied cookie does not live on."""
    await node.begin()
    await node.rotate("t0", "t1")
    clocks.go_on(hours * 3600)
    assert isinstance(await node.take("t0"), expected)


async def test_the_same_token_is_answered_for_a_minute_without_rotation(node: Node, clocks: Clocks) -> None:
    """A backend that keeps the refresh token gives one access token to all who come together."""
    await node.begin()
    await node.rotate("t0", "t0")
    assert isinstance(await node.take("t0"), Succeeded)
    clocks.go_on(61)
    await node.rotate("t0", "t0")


async def test_a_backend_may_stop_to_rotate(node: Node) -> None:
    """An older token is then answered with what its newest successor got."""
    await node.begin()
    await node.rotate("t0", "t1")
    await node.rotate("t1", "t1")
    taken = await node.take("t0")
    assert isinstance(taken, Succeeded)
    assert (taken.sealed_for, taken.newest) == (key("t1"), key("t1"))


@pytest.mark.parametrize("which", ["token", "session", "user"])
async def test_the_end_of_a_log_in_refuses_all_its_tokens(nodes: tuple[Node, Node], which: str) -> None:
    """Predecessors and successors, in each process, until the cookie's own end; and a call that runs is lost."""
    await nodes[0].begin()
    await nodes[0].rotate("t0", "t1")
    lease = await nodes[0].lease("t1")
    store = nodes[1].store
    ended = {
        "token": lambda: store.end(key("t0")),
        "session": lambda: store.end_sessions(session="ref-1"),
        "user": lambda: store.end_sessions(subject="u1"),
    }
    assert list(await ended[which]()) == ["ref-1"]
    assert not await nodes[0].complete("t1", lease, "t2")
    for token in ("t0", "t1"):
        assert await nodes[0].take(token) == Refused(over=Over.ENDED, family=LOGIN)
    assert await nodes[0].store.find(key("t1")) == LOGIN


async def test_the_end_of_an_unknown_token_ends_nothing(node: Node) -> None:
    """Anybody can send a token that nobody knows."""
    await node.begin()
    assert list(await node.store.end(key("x"))) == []
    assert isinstance(await node.take("t0"), Redeem)


async def test_a_log_in_from_a_clock_that_is_ahead_is_ended_and_a_later_one_is_not(node: Node) -> None:
    """A revocation ends all log-ins that are stored, whatever time their tokens have, and none that comes after it."""
    await node.begin("t0")
    await node.begin("n0", Family(session="ref-2", subject="u1", logged_in_at=9e9))
    assert set(await node.store.end_sessions(subject="u1")) == {"ref-1", "ref-2"}
    assert isinstance(await node.take("n0"), Refused)
    await node.begin("l0", Family(session="ref-3", subject="u1", logged_in_at=1_000))
    assert isinstance(await node.take("l0"), Redeem)


async def test_a_young_token_is_not_redeemed_for_a_caller_who_says_so(node: Node, clocks: Clocks) -> None:
    """A successor; others may redeem it at once."""

    async def take(token: str) -> Taken:
        return await node.store.take(key(token), lease_s=6, unconfirmed_s=DAY_S, keep_s=KEEP_S, young_s=30)

    await node.begin()
    assert isinstance(await take("t0"), Redeem)
    clocks.go_on(31)
    await node.rotate("t0", "t1")
    assert isinstance(await take("t1"), Young)
    assert isinstance(await take("t0"), Succeeded)
    clocks.go_on(31)
    assert isinstance(await take("t1"), Redeem)
    assert isinstance(await take("unknown"), Redeem)


async def test_a_token_that_was_redeemed_for_nothing_is_never_sent_again(
    nodes: tuple[Node, Node], clocks: Clocks
) -> None:
    """The answer was 2xx and of no use: nobody gets a lease again, whichever token of the family comes."""
    await nodes[0].begin()
    await nodes[0].rotate("t0", "t1")
    await nodes[0].store.spend(key("t1"), await nodes[0].lease("t1"))
    for token in ("t0", "t1"):
        assert await nodes[1].take(token, is_shown=False) == Refused(over=Over.UNUSABLE, family=LOGIN)
    clocks.go_on(61)
    assert await nodes[1].take("t1") == Refused(over=Over.LOST, family=LOGIN)
    assert await nodes[1].take("t0") == Refused(over=Over.SPENT, family=LOGIN)
    assert list(await nodes[0].store.end_sessions(session="ref-1")) == ["ref-1"]


async def test_a_token_that_the_backend_gives_out_again_belongs_to_the_newest_log_in(node: Node) -> None:
    """Some backends have one refresh token for each user: it is good again after a log-out and a log-in."""
    await node.begin()
    await node.store.end(key("t0"))
    await node.begin("t0", Family(session="ref-2", subject="u1", logged_in_at=2_000))
    assert isinstance(await node.take("t0"), Redeem)
    assert list(await node.store.end_sessions(session="ref-2")) == ["ref-2"]


async def test_a_session_with_many_ids_ends_by_each_of_them(node: Node) -> None:
    """A backend may give each access token a session id of its own."""
    await node.begin()
    for number in range(3):
        family = Family(session=f"s{number}", subject="u1", logged_in_at=1_000)
        assert await node.complete(
            f"t{number}", await node.lease(f"t{number}"), f"t{number + 1}", family=family
        )
    assert list(await node.store.end_sessions(session="s1")) == ["s2", "s1", "s0", "ref-1"]
    assert isinstance(await node.take("t3"), Refused)


async def test_a_refresh_is_no_new_log_in(node: Node) -> None:
    """The family keeps the time of its log-in, so that a revocation in between ends it."""
    await node.begin()
    later = Family(session="ref-9", subject="u1", logged_in_at=3_000)
    assert await node.complete("t0", await node.lease("t0"), "t1", family=later)
    found = await node.store.find(key("t1"))
    assert found == Family(session="ref-9", subject="u1", logged_in_at=1_000)
    assert list(await node.store.end_sessions(subject="u1")) == ["ref-9", "ref-1"]


async def test_the_oldest_tokens_are_forgotten(node: Node) -> None:
    """The store keeps a bounded number of hashes a family."""
    await node.begin()
    for number in range(KEPT_TOKENS + 3):
        await node.rotate(f"t{number}", f"t{number + 1}")
    taken = await node.take("t0")
    assert isinstance(taken, Redeem)
    assert taken.family is None
    assert isinstance(await node.take("t4"), Succeeded)


async def test_an_unknown_token_that_was_refused_is_forgotten(node: Node) -> None:
    """Strangers' tokens must not fill the store, refused or unanswered; the result of a running call is thrown away."""
    lease = await node.lease("x")
    assert list(await node.store.end(key("x"))) == []
    assert not await node.complete("x", lease, "y")
    await node.store.release(key("x"), await node.lease("x"))
    taken = await node.take("x")
    assert isinstance(taken, Redeem)
    assert taken.family is None


async def test_a_restart_keeps_all(open_node: Open) -> None:
    """Successors are known to the next process, and so is what was ended."""
    async with open_node() as node:
        await node.begin("t0")
        await node.rotate("t0", "t1")
        await node.begin("e0", Family(session="ref-2", subject="u2", logged_in_at=1_000))
        await node.store.end(key("e0"))
    async with open_node() as node:
        assert isinstance(await node.take("t0"), Succeeded)
        assert isinstance(await node.take("e0"), Refused)
