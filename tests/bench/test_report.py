"""The report: medians, ratios of the same run, and every doubt in words."""

import json
from dataclasses import replace
from typing import Any

import pytest

from relay.bench.benchmarks.delivery import Measured
from relay.bench.benchmarks.fanout import Fanout
from relay.bench.report import Figure, Report, Row, Run
from tests.support.bench_results import GOOD, side

FANOUT = Fanout(subscribers=10, rate=100, ticks=100, runs=3)


def report(*runs: Run[Measured], fanout: Fanout = FANOUT) -> Report:
    """Return the report of some runs."""
    return fanout.report(list(runs))


def test_figures_are_medians_and_ratios_are_of_one_run() -> None:
    """A run in which both sides were three times slower changes no ratio."""
    found = report(
        Run(relay=side(1.01), yardstick=side(2.02)),
        Run(relay=side(3.03), yardstick=side(6.06)),
        Run(relay=side(1.01), yardstick=side(2.02)),
    )
    first = found.rows[0]
    assert first.cells() == (
        "CPU µs a delivery",
        "1000.00",
        "2000.00",
        "0.50",
        "",
    )
    assert found.table()[0] == ("figure", "relay", "broadcast()", "ratio")


@pytest.mark.parametrize(
    ("at_most", "at_least", "ratio", "aim"),
    [
        (0.5, None, 0.5, "at most 0.5"),
        (0.5, None, 0.6, "at most 0.5, missed"),
        (None, 0.5, 0.5, "at least 0.5"),
        (None, 0.5, 0.4, "at least 0.5, missed"),
        (None, 0.5, None, "at least 0.5"),
        (None, None, 0.5, ""),
    ],
)
def test_an_aim_is_shown_and_whether_it_was_missed(
    at_most: float | None, at_least: float | None, ratio: float | None, aim: str
) -> None:
    """It is about the ratio where there is one, and about the relay's own figure elsewhere; unknown is no miss."""
    for has_ratio, relay in ((True, 100.0), (False, ratio)):
        figure: Figure[Any] = Figure("x", "x", "x", has_ratio=has_ratio, at_most=at_most, at_least=at_least)
        assert Row(figure=figure, relay=relay, yardstick=None, ratio=ratio).aim == aim


def test_a_good_run_needs_no_words() -> None:
    """Without anything to doubt there is no note."""
    found = report(Run(relay=GOOD, yardstick=GOOD))
    assert found.notes == []
    assert found.is_whole


def test_every_doubt_is_said() -> None:
    """A busy load, a pace not kept, publishing that was stopped: each is a sentence that names the side."""
    doubtful = side(1.0, published_per_s=41.0, complete=False, wall_s=0.2)
    said = "\n".join(report(Run(relay=GOOD, yardstick=doubtful)).notes)
    assert "100% of a core against the yardstick" in said
    assert "The yardstick kept no pace of 100 ticks/s: it took 41.0" in said
    assert "The yardstick was stopped when its time was up; in one run after 100 ticks" in said
    assert "The relay" not in said


def test_ticks_that_shared_a_write_are_told() -> None:
    """A price that coalescing made is not passed off as the price of a write; flat out it is what was asked for."""
    run = Run(relay=side(reads=400), yardstick=GOOD)
    assert report(run).notes[0].startswith("The relay put 2.5 ticks into one write")
    assert report(run, fanout=replace(FANOUT, rate=0)).notes == []


def test_a_loss_of_the_relay_is_a_failure() -> None:
    """Conflation is legal; a subscriber without the last value is not, and the yardstick's losses are its own."""
    assert report(Run(relay=side(conflated=5), yardstick=GOOD)).is_whole
    assert report(Run(relay=GOOD, yardstick=side(lost=1))).is_whole
    assert not report(Run(relay=side(lost=1), yardstick=GOOD)).is_whole
    assert not report(Run(relay=side(repeated=1), yardstick=GOOD)).is_whole


def test_what_is_unknown_is_shown_as_unknown() -> None:
    """Without a delivery there is no price of one, and no ratio of it."""
    found = report(Run(relay=side(delivered=0, ended=0), yardstick=GOOD))
    assert found.rows[0].cells()[1::2] == ("-", "-")


def test_json_has_each_run_and_the_circumstances() -> None:
    """A program finds medians, ratios, every run's own figures, and what machine it was."""
    made = report(Run(relay=GOOD, yardstick=GOOD))
    found = json.loads(json.dumps(made.json))
    assert found["relay"]["cpu_us_a_delivery"] == 1000.0
    assert found["ratio"]["cpu_us_a_delivery"] == 1.0
    assert found["each"][0]["yardstick"]["delivered"] == 1000
    assert found["each"][0]["relay"]["counted"]["groups"][0]["windows"][0]["p99_ms"] == 2.0
    assert found["machine"]["cores"] >= 1
    assert made.headline == "fanout: 10 subscribers, 100 ticks/s, 100 ticks, medians of 3"
