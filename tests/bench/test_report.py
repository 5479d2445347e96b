"""The report: medians, ratios of the same run, and every doubt in words."""

import json
from dataclasses import replace
from typing import Any

import msgspec

from relay.bench.counting import Counted
from relay.bench.fanout import FanoutOptions, Measured, Run
from relay.bench.report import headline, is_whole, notes, rows, to_json

OPTIONS = FanoutOptions(subscribers=10, rate=100, ticks=100, runs=3)
COUNTED = Counted(
    delivered=1000,
    ended=10,
    conflated=0,
    lost=0,
    repeated=0,
    closed=0,
    close_reason="",
    stalled=False,
    reads=1010,
    bytes=150_000,
    seconds=1.0,
    wall_s=2.0,
    cpu_s=0.2,
    p50_ms=1.0,
    p99_ms=2.0,
    max_ms=3.0,
)
GOOD = Measured(counted=COUNTED, open_s=0.1, published_per_s=100.0, server_cpu_s=1.01)


def side(cpu_s: float | None = 1.01, published_per_s: float = 100.0, **counted: Any) -> Measured:
    """Return one side that went well but for what is named."""
    changed = msgspec.structs.replace(COUNTED, **counted)
    return replace(GOOD, counted=changed, server_cpu_s=cpu_s, published_per_s=published_per_s)


def test_figures_are_medians_and_ratios_are_of_one_run() -> None:
    """A run in which both sides were three times slower changes no ratio."""
    runs = [
        Run(relay=side(1.01), yardstick=side(2.02)),
        Run(relay=side(3.03), yardstick=side(6.06)),
        Run(relay=side(1.01), yardstick=side(2.02)),
    ]
    first = rows(runs)[0]
    assert (first.name, first.relay, first.yardstick, first.ratio) == (
        "CPU µs a delivery",
        "1000.00",
        "2000.00",
        "0.50",
    )


def test_a_good_run_needs_no_words() -> None:
    """Without anything to doubt there is no note."""
    assert notes(OPTIONS, [Run(relay=GOOD, yardstick=GOOD)]) == []
    assert is_whole([Run(relay=GOOD, yardstick=GOOD)])


def test_every_doubt_is_said() -> None:
    """A busy load, a pace not kept, conflation, loss, repeats: each is a sentence that names the side."""
    doubtful = side(published_per_s=41.0, cpu_s=1.0, conflated=5, lost=6, repeated=7, wall_s=0.2)
    said = "\n".join(notes(OPTIONS, [Run(relay=GOOD, yardstick=doubtful)]))
    assert "100% of a core against the yardstick" in said
    assert "The yardstick kept no pace of 100 ticks/s: it took 41.0" in said
    assert "The yardstick conflated 5 of 3,000 deliveries" in said
    assert "The yardstick LOST 6 deliveries" in said
    assert "The yardstick sent 7 deliveries twice" in said
    assert "The relay" not in said


def test_ticks_that_shared_a_write_are_told() -> None:
    """A price that coalescing made is not passed off as the price of a write; flat out it is what was asked for."""
    runs = [Run(relay=side(reads=400), yardstick=GOOD)]
    assert notes(OPTIONS, runs)[0].startswith("The relay put 2.5 ticks into one write")
    assert notes(replace(OPTIONS, rate=0), runs) == []


def test_a_loss_of_the_relay_is_a_failure() -> None:
    """Conflation is legal; a subscriber without the last value is not."""
    assert is_whole([Run(relay=side(conflated=5), yardstick=GOOD)])
    assert not is_whole([Run(relay=side(lost=1), yardstick=GOOD)])
    assert not is_whole([Run(relay=side(repeated=1), yardstick=GOOD)])


def test_what_is_unknown_is_shown_as_unknown() -> None:
    """Without the relay's process there is no CPU, and no ratio of it."""
    runs = [Run(relay=side(None), yardstick=GOOD)]
    first = rows(runs)[0]
    assert (first.relay, first.ratio) == ("-", "-")
    assert "--pid" in notes(OPTIONS, runs)[0]


def test_json_has_each_run_and_the_circumstances() -> None:
    """A program finds medians, ratios, every run's own figures, and what machine it was."""
    found = json.loads(json.dumps(to_json(OPTIONS, [Run(relay=GOOD, yardstick=GOOD)])))
    assert found["relay"]["cpu_us_a_delivery"] == 1000.0
    assert found["ratio"]["cpu_us_a_delivery"] == 1.0
    assert found["each"][0]["yardstick"]["delivered"] == 1000
    assert found["machine"]["cores"] >= 1
    assert headline(OPTIONS) == "fanout: 10 subscribers, 100 ticks/s, 100 ticks, medians of 3"
