"""A reader that is too slow: what it reports is what it read, and a reader that stops stays until the end."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.bench.load.processes import Child, holds_connection
from relay.bench.load.servers import Server, yardstick_server
from relay.bench.load.slow_reader import Order
from relay.bench.load.ticks import Ticks

TICKS = Ticks(run="0a1b2c3d", channels=["prices.A"], rate=200, count=1_000_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A yardstick that publishes."""
    with yardstick_server(tmp_path, TICKS, waits=False) as running:
        running.source.say({"go": True})
        yield running


def order(server: Server, **changed: Any) -> Order:
    """Return what to read."""
    asked: dict[str, Any] = {"rate_bytes": 1_000_000, "seconds": 1.0, **changed}
    return Order(target=server.target(TICKS.channels), ticks=TICKS, **asked)


def test_ages_are_those_of_the_newest_price(server: Server, tmp_path: Path) -> None:
    """A reader that keeps up sees fresh prices, and as many bytes as the channel has."""
    asked = order(server)
    with Child.run("The reader", tmp_path, "relay.bench.load.slow_reader", order=asked) as child:
        port = child.hear(within_s=30)["open"]
        assert holds_connection(server.pid, port)
        read = child.hear(within_s=30)["result"]
    assert 0 <= read["age_p50_ms"] <= read["age_max_ms"]
    assert read["ageing_ms_per_s"] is not None
    assert read["closed"] == ""


def test_who_stops_reading_stays(server: Server, tmp_path: Path) -> None:
    """It says nothing more, and keeps its connection until it is ended."""
    asked = order(server, rate_bytes=0)
    with Child.run("The reader", tmp_path, "relay.bench.load.slow_reader", order=asked) as child:
        child.hear(within_s=30)
        assert not child.has_spoken(within_s=0.2)


def test_a_server_that_ends_it_is_told(server: Server, tmp_path: Path) -> None:
    """The report says that the connection was closed, and is about the time until then."""
    asked = order(server, seconds=100.0)
    with Child.run("The reader", tmp_path, "relay.bench.load.slow_reader", order=asked) as child:
        child.hear(within_s=30)
        os.kill(server.pid, signal.SIGKILL)
        read = child.hear(within_s=30)["result"]
    assert "slow reader's connection" in read["closed"]
    assert read["age_p50_ms"] is None
