"""Publishing ticks to a real relay: each one once, and every refusal in a sentence."""

from collections.abc import Iterator

import httpx
import pytest

from relay.bench import BenchError
from relay.bench.publishing import TickPublisher
from relay.bench.ticks import Ticks
from tests.support.service import PUBLISHER_KEY, Relay, running


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for all tests here."""
    with running(tmp_path_factory.mktemp("relay")) as running_relay:
        yield running_relay


@pytest.mark.parametrize("rate", [0, 1000, 100_000])
def test_every_tick_is_published_once(relay: Relay, rate: float) -> None:
    """Whatever the pace, and however many share a request, the channel's number grows by as many."""
    ticks = Ticks(run="0a1b2c3d", channel=f"prices.R{rate}")
    told: list[int] = []
    publisher = TickPublisher(relay.internal_url, PUBLISHER_KEY)
    assert publisher.publish_all(ticks, rate=rate, count=100, published=told.append) > 0
    publisher.publish_end(ticks)
    publisher.close()
    assert told == sorted(told)
    assert told[-1] == 100
    answer = httpx.post(
        f"{relay.internal_url}/v1/publish",
        json={"channel": ticks.channel, "data": 1},
        headers={"Authorization": f"Bearer {PUBLISHER_KEY}"},
        trust_env=False,
    )
    assert answer.json()["seq"] == 102


@pytest.mark.parametrize("count", [1, 2])
def test_a_refusal_ends_it(relay: Relay, count: int) -> None:
    """A key that may not publish there, or is none, is told; alone and in a batch."""
    told: list[int] = []
    for key, channel, sentence in (
        (PUBLISHER_KEY, "orders.42", "The relay refused to publish: .*forbidden"),
        ("pricing.wrong", "prices.X", "The relay refused to publish: 401 "),
    ):
        publisher = TickPublisher(relay.internal_url, key)
        ticks = Ticks(run="0a1b2c3d", channel=channel)
        with pytest.raises(BenchError, match=sentence):
            publisher.publish_all(ticks, rate=0, count=count, published=told.append)
        publisher.close()
    assert told == []
