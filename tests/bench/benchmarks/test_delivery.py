"""One side of one run, against servers that are broken: what they lose, repeat or close is found out."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.bench import BenchError
from relay.bench.benchmarks import delivery
from relay.bench.benchmarks.delivery import Delivery, Measured, deliver, opened
from relay.bench.load.servers import yardstick_server
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import QUOTE, Ticks, script_line

SUBSCRIBERS = 4


def say_nothing(_done: int, _total: int, _unit: str) -> None:
    """Show nothing."""


@contextlib.contextmanager
def load_on(folder: Path, how: str, ticks: Ticks, *, stream: bool = False) -> Iterator[Delivery]:
    """Open a load on a server that is broken in one way; "" for the yardstick itself."""
    program = ("tests.support.broken_server", how) if how else ("relay.bench.load.yardstick",)
    with yardstick_server(folder, ticks, program=program) as server:
        group = GroupOrder(target=server.target(ticks.channels), connections=SUBSCRIBERS, stream=stream)
        with opened(server, [group], ticks, folder) as load:
            yield load


def measure(folder: Path, how: str, *, stream: bool = False) -> Measured:
    """Deliver 50 ticks on two channels."""
    script = folder / "script"
    script.write_bytes(b"".join(script_line(number / 1000, number % 2, QUOTE) for number in range(50)))
    ticks = Ticks(
        run="0a1b2c3d",
        channels=["prices.A", "prices.B"],
        count=50,
        rate=1000,
        script=str(script),
        streams=frozenset([0, 1]) if stream else frozenset(),
    )
    with load_on(folder, how, ticks, stream=stream) as load:
        return deliver(load, ticks, say_nothing)


def test_a_good_server_loses_nothing(tmp_path: Path) -> None:
    """The yardstick itself delivers everything once."""
    measured = measure(tmp_path, "", stream=True)
    assert measured.complete
    assert (measured.published, measured.counted.total.expected, measured.counted.total.delivered) == (
        50,
        200,
        200,
    )
    assert (measured.counted.total.ended, measured.counted.total.lost, measured.counted.total.repeated) == (
        8,
        0,
        0,
    )
    assert measured.server_cpu_s is not None


def test_a_last_value_that_never_comes_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ticks came and so did the other channel's last value: each subscriber has lost one all the same."""
    monkeypatch.setattr(delivery, "STALL_S", 1.0)
    measured = measure(tmp_path, "no-end")
    assert measured.counted.stalled
    assert (measured.counted.total.delivered, measured.counted.total.lost) == (200, SUBSCRIBERS)


def test_what_a_stream_leaves_out_is_lost(tmp_path: Path) -> None:
    """Every tenth of 50 messages is missing: five for each subscriber. On a latest channel that is conflation."""
    assert measure(tmp_path, "drops", stream=True).counted.total.lost == 5 * SUBSCRIBERS
    (tmp_path / "latest").mkdir()
    counted = measure(tmp_path / "latest", "drops").counted
    assert (counted.total.lost, counted.total.conflated) == (0, 5 * SUBSCRIBERS)


def test_what_comes_twice_is_repeated(tmp_path: Path) -> None:
    """Every tenth of 50 messages comes twice."""
    counted = measure(tmp_path, "repeats", stream=True).counted
    assert (counted.total.lost, counted.total.repeated) == (0, 5 * SUBSCRIBERS)


def test_closed_connections_end_the_run(tmp_path: Path) -> None:
    """Half a measurement is none: the sentence says how far it came, and how many were closed."""
    with pytest.raises(
        BenchError, match=rf"deliveries arrived, and {SUBSCRIBERS} of {SUBSCRIBERS} connections"
    ):
        measure(tmp_path, "closes")


def test_who_is_late_is_stopped(tmp_path: Path) -> None:
    """Publishing that takes longer than it may is ended; what was published until then has arrived."""
    ticks = Ticks(run="0a1b2c3d", channels=["prices.A"], rate=100, count=1_000_000)
    with load_on(tmp_path, "", ticks) as load:
        measured = deliver(load, ticks, say_nothing, within_s=0.5)
    assert not measured.complete
    assert 0 < measured.published < 1000
    assert (
        measured.counted.total.expected
        == measured.published * SUBSCRIBERS
        == measured.counted.total.delivered
    )


def test_windows_have_latencies_of_their_own(tmp_path: Path) -> None:
    """What was measured before a window began is not in it."""
    ticks = Ticks(run="0a1b2c3d", channels=["prices.A"], rate=100, count=10_000)
    with load_on(tmp_path, "", ticks) as load:
        load.start()
        load.watch(within_s=0.3)
        load.window()
        measured = load.finish()
    before, after = measured.counted.groups[0].windows
    assert before.samples + after.samples == measured.published * SUBSCRIBERS
    assert before.p99_ms is not None
