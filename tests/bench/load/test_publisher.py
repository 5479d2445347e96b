"""Publishing ticks to a real relay: each one once, and every refusal in a sentence."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from relay.bench import BenchError
from relay.bench.load.processes import Child
from relay.bench.load.publisher import Order, publish_all, publish_ends, publisher_of
from relay.bench.load.ticks import QUOTE, Ticks, script_line
from tests.support.relay_process import PUBLISHER_KEY, Relay, running


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for all tests here."""
    with running(tmp_path_factory.mktemp("relay")) as running_relay:
        yield running_relay


def next_seq(relay: Relay, channel: str) -> int:
    """Publish once more, and return the number that it got."""
    answer = httpx.post(
        f"{relay.internal_url}/v1/publish",
        json={"channel": channel, "data": 1},
        headers={"Authorization": f"Bearer {PUBLISHER_KEY}"},
        trust_env=False,
        verify=False,
    )
    seq: int = answer.json()["seq"]
    return seq


@pytest.mark.parametrize("rate", [0, 1000, 100_000])
async def test_every_tick_is_published_once(relay: Relay, rate: float) -> None:
    """Whatever the pace, and however many share a request, each channel's number grows by its share."""
    ticks = Ticks(run="0a1b2c3d", channels=[f"prices.R{rate}", f"prices.S{rate}"], rate=rate, count=101)
    told: list[int] = []

    def goes_on(done: int) -> bool:
        told.append(done)
        return True

    async with publisher_of(Order(ticks=ticks, url=relay.internal_url, key=PUBLISHER_KEY)) as publisher:
        assert await publish_all(publisher, ticks, goes_on) == [51, 50]
        await publish_ends(publisher, ticks, [51, 50])
    assert told == sorted(told)
    assert [next_seq(relay, channel) for channel in ticks.channels] == [53, 52]


async def test_it_can_be_stopped(relay: Relay) -> None:
    """What was published until then is told by channel, and nothing else goes out."""
    ticks = Ticks(run="0a1b2c3d", channels=["prices.STOP"], rate=1000, count=1_000_000)
    async with publisher_of(Order(ticks=ticks, url=relay.internal_url, key=PUBLISHER_KEY)) as publisher:
        counts = await publish_all(publisher, ticks, lambda done: done < 10)
    assert counts[0] >= 10
    assert next_seq(relay, "prices.STOP") == counts[0] + 1


async def test_the_process_publishes_a_script(relay: Relay, tmp_path: Path) -> None:
    """Told by lines: go, how far it is, stop when it is told to, then the end marks."""
    script = tmp_path / "script"
    script.write_bytes(
        b"".join([script_line(0.0, 1, QUOTE), script_line(0.01, 0, QUOTE), script_line(600.0, 0, QUOTE)])
    )
    ticks = Ticks(run="0a1b2c3d", channels=["prices.P0", "prices.P1"], script=str(script))
    order = Order(ticks=ticks, url=relay.internal_url, key=PUBLISHER_KEY)
    assert PUBLISHER_KEY not in repr(order)
    with Child.run("The publisher", tmp_path, "relay.bench.load.publisher", order=order) as child:
        assert child.hear(within_s=30) == {"ready": True}
        child.say({"go": True})
        while child.hear(within_s=30)["published"] != 2:
            pass
        child.say({"stop": True})
        while "seconds" not in (answer := child.hear(within_s=30)):
            pass
        assert answer["published"] == 2
        assert child.hear(within_s=30) == {"finished": True}
    assert [next_seq(relay, channel) for channel in ticks.channels] == [3, 3]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_refusal_ends_it(relay: Relay, count: int) -> None:
    """A key that may not publish there, or is none, is told; alone and in a batch."""
    for key, channel, sentence in (
        (PUBLISHER_KEY, "orders.42", "The relay refused to publish: .*forbidden"),
        ("pricing.wrong", "prices.X", "The relay refused to publish: 401 "),
    ):
        ticks = Ticks(run="0a1b2c3d", channels=[channel], count=count)
        async with publisher_of(Order(ticks=ticks, url=relay.internal_url, key=key)) as publisher:
            with pytest.raises(BenchError, match=sentence):
                await publish_all(publisher, ticks, lambda _done: True)
