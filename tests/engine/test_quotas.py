"""Quotas of publishers that two nodes share."""

import time
from collections.abc import Sequence
from functools import partial

import pytest

from relay.engine.options import EngineOptions
from relay.engine.quotas import LEASE_S, EngineQuotas
from relay.engine.scripts import script
from relay.limits.quotas import Quota, QuotaTerms
from tests.support.engines import KINDS, Engines, EngineServer, lossy_link


class Nodes:
    """Two nodes with a quota of the same publisher, and a clock that the test moves."""

    def __init__(self, options: EngineOptions, terms: QuotaTerms) -> None:
        self.now = time.monotonic()
        self.quotas = [Quota(terms, now=self.now) for _ in range(2)]
        self.shared = [
            EngineQuotas(options, clock=lambda: self.now, steady=lambda: self.now) for _ in range(2)
        ]
        for quota, shared in zip(self.quotas, self.shared, strict=True):
            shared.quotas = partial(dict, pricing=quota)

    async def spend(self, *, steps: int, active: Sequence[int] = (0, 1), size: int = 1) -> list[int]:
        """Publish as much as the quota allows in so many leases, and return how many messages each node published."""
        published = [0, 0]
        for _ in range(steps):
            for node in active:
                while not self.quotas[node].wait_s(self.now):
                    self.quotas[node].charge(self.now, size)
                    published[node] += 1
            self.now += LEASE_S
            for node in active:
                await self.shared[node].share()
        return published


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, engines: Engines) -> EngineServer:
    """One engine after the other."""
    return engines(request.param)


async def closed(nodes: Nodes) -> None:
    for shared in nodes.shared:
        await shared.aclose()


async def test_a_quota_holds_over_two_nodes(server: EngineServer) -> None:
    """In the long run; at once each node may let through one burst."""
    nodes = Nodes(server.options(), QuotaTerms(rate="100/second"))
    assert sum(await nodes.spend(steps=1)) <= 200
    published = await nodes.spend(steps=200)  # ten seconds, of which the first one pays the debt
    assert 850 <= sum(published) <= 1_000
    await closed(nodes)


async def test_one_node_gets_the_whole_quota_of_another_that_is_quiet(server: EngineServer) -> None:
    """Nothing is divided in advance."""
    nodes = Nodes(server.options(), QuotaTerms(rate="100/second"))
    assert 1_000 <= (await nodes.spend(steps=200, active=(0,)))[0] <= 1_100
    await closed(nodes)


async def test_bytes_are_shared_too(server: EngineServer) -> None:
    """A message may be larger than what is left, and is paid back by both."""
    nodes = Nodes(server.options(), QuotaTerms(byte_rate="1000/second"))
    published = await nodes.spend(steps=200, size=100)
    assert 90 <= sum(published) <= 125
    await closed(nodes)


async def test_a_lost_reply_gives_nothing_and_takes_a_lease_at_most(server: EngineServer) -> None:
    """What was used may be charged twice, which is a debt of 50 ms, and it is paid back."""
    async with lossy_link(server.port) as link:
        nodes = Nodes(server.options(f"redis://127.0.0.1:{link.port}"), QuotaTerms(rate="100/second"))
        await nodes.spend(steps=1)
        link.lose_reply_to(script("quota").sha.encode())
        published = await nodes.spend(steps=200)
        assert link.lost == 1
        assert 840 <= sum(published) <= 1_000
        await closed(nodes)


async def test_a_node_goes_on_alone_without_an_engine(own_engine: EngineServer) -> None:
    """Its own bucket bounds it, and what it used is told later."""
    nodes = Nodes(own_engine.options(), QuotaTerms(rate="100/second"))
    own_engine.stop()
    assert (await nodes.spend(steps=2, active=(0,)))[0] <= 110
    assert nodes.quotas[0].used[0] >= 100
    own_engine.start()
    await nodes.spend(steps=1, active=(0,))
    await closed(nodes)
