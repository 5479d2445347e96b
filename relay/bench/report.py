"""What a fan-out benchmark found, as rows for people and as one object for programs.

Every figure is the median of the runs. A ratio is the median of the runs' own ratios: what one run's two sides
have in common (the machine, the minute) falls out of it.
"""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from relay import __version__
from relay.bench.fanout import FanoutOptions, Measured, Run, median

BUSY_CORES = 0.9
"""Share of a core from which on the load generator may be what is measured."""
KEPT_PACE = 0.97
"""Share of the asked rate below which the pace was not kept."""

ALONE = 1.2
"""Ticks a read up to which each was a write of its own, as the yardstick's are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of both sides, and their ratio where one says something; formatted, "-" where unknown."""

    name: str
    relay: str
    yardstick: str
    ratio: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    key: str
    name: str
    of: Callable[[Measured], float | None]
    form: str = ",.0f"
    has_ratio: bool = False


_FIGURES = (
    _Figure(
        key="cpu_us_a_delivery",
        name="CPU µs a delivery",
        of=lambda m: m.cpu_us_a_delivery,
        form=".2f",
        has_ratio=True,
    ),
    _Figure(key="deliveries_per_s", name="deliveries/s", of=lambda m: m.deliveries_per_s, has_ratio=True),
    _Figure(
        key="latency_p50_ms", name="latency p50 ms", of=lambda m: m.counted.p50_ms, form=".1f", has_ratio=True
    ),
    _Figure(
        key="latency_p99_ms", name="latency p99 ms", of=lambda m: m.counted.p99_ms, form=".1f", has_ratio=True
    ),
    _Figure(key="latency_max_ms", name="latency max ms", of=lambda m: m.counted.max_ms, form=".1f"),
    _Figure(key="published_per_s", name="ticks/s published", of=lambda m: m.published_per_s, form=",.1f"),
    _Figure(key="deliveries_a_read", name="deliveries a read", of=lambda m: m.deliveries_a_read, form=".2f"),
    _Figure(key="server_cores", name="server CPU, cores", of=lambda m: m.server_cores, form=".2f"),
    _Figure(
        key="load_generator_cores", name="load generator CPU, cores", of=lambda m: m.load_cores, form=".2f"
    ),
    _Figure(key="delivered", name="delivered", of=lambda m: m.counted.delivered),
    _Figure(key="conflated", name="conflated", of=lambda m: m.counted.conflated),
    _Figure(key="lost", name="lost", of=lambda m: m.counted.lost),
    _Figure(key="repeated", name="repeated", of=lambda m: m.counted.repeated),
)


def headline(options: FanoutOptions) -> str:
    """Return what was measured, as one line."""
    pace = f"{options.rate:g} ticks/s" if options.rate else "ticks as fast as they go"
    return f"fanout: {options.subscribers:,} subscribers, {pace}, {options.ticks:,} ticks, medians of {options.runs}"


def rows(runs: Sequence[Run]) -> list[Row]:
    """Return the figures for people."""
    return [
        Row(
            name=figure.name,
            relay=_shown(median([figure.of(run.relay) for run in runs]), figure.form),
            yardstick=_shown(median([figure.of(run.yardstick) for run in runs]), figure.form),
            ratio=_shown(_ratio(figure, runs), ".2f") if figure.has_ratio else "",
        )
        for figure in _FIGURES
    ]


def notes(options: FanoutOptions, runs: Sequence[Run]) -> list[str]:
    """Return what a reader must know before believing the figures, as sentences."""
    found = []
    for side, measured in (
        ("relay", [run.relay for run in runs]),
        ("yardstick", [run.yardstick for run in runs]),
    ):
        busiest = max(one.load_cores for one in measured)
        if busiest > BUSY_CORES:
            found.append(
                f"The load generator used up to {busiest:.0%} of a core against the {side}: "
                "rates and latencies may be its own."
            )
        slowest = min(one.published_per_s for one in measured)
        if options.rate and slowest < KEPT_PACE * options.rate and options.ticks / options.rate >= 1:
            found.append(
                f"The {side} kept no pace of {options.rate:g} ticks/s: it took {slowest:.1f} in one run."
            )
        if conflated := sum(one.counted.conflated for one in measured):
            found.append(
                f"The {side} conflated {conflated:,} of {_expected(options):,} deliveries in all runs: a subscriber "
                "whose socket was full got the newest value instead, as channels of mode latest do."
            )
        if lost := sum(one.counted.lost for one in measured):
            found.append(f"The {side} LOST {lost:,} deliveries: those subscribers never got the last value.")
        if repeated := sum(one.counted.repeated for one in measured):
            found.append(f"The {side} sent {repeated:,} deliveries twice.")
    shared = median([run.relay.deliveries_a_read for run in runs])
    if options.rate and shared is not None and shared > ALONE:
        found.append(
            f"The relay put {shared:.1f} ticks into one write, as it does when it has no core to itself. That is most "
            "of its lead here; at a lower --rate each tick is a write of its own."
        )
    if any(run.relay.server_cpu_s is None for run in runs):
        found.append("The relay's CPU is unknown without --pid, the number of its process on this machine.")
    return found


def is_whole(runs: Sequence[Run]) -> bool:
    """Tell whether the relay delivered everything once, but for what it may conflate."""
    return not any(run.relay.counted.lost or run.relay.counted.repeated for run in runs)


def to_json(options: FanoutOptions, runs: Sequence[Run]) -> dict[str, Any]:
    """Return everything as an object for JSON: the medians by side, the ratios, each run, and the circumstances."""
    return {
        "bench": "fanout",
        "version": __version__,
        "subscribers": options.subscribers,
        "rate": options.rate,
        "ticks": options.ticks,
        "runs": options.runs,
        "expected": options.subscribers * options.ticks,
        "yardstick_is": "websockets.broadcast() on uvloop",
        "machine": {
            "cores": os.cpu_count(),
            "load_average": [round(value, 2) for value in os.getloadavg()],
            "python": platform.python_version(),
            "system": platform.system(),
        },
        "relay": _medians([run.relay for run in runs]),
        "yardstick": _medians([run.yardstick for run in runs]),
        "ratio": {figure.key: _ratio(figure, runs) for figure in _FIGURES if figure.has_ratio},
        "notes": notes(options, runs),
        "each": [{"relay": _all_of(run.relay), "yardstick": _all_of(run.yardstick)} for run in runs],
    }


def _medians(measured: Sequence[Measured]) -> dict[str, float | None]:
    return {figure.key: median([figure.of(one) for one in measured]) for figure in _FIGURES}


def _all_of(one: Measured) -> dict[str, Any]:
    figures: dict[str, Any] = {figure.key: figure.of(one) for figure in _FIGURES}
    return {
        **figures,
        "open_s": one.open_s,
        "server_cpu_s": one.server_cpu_s,
        **msgspec.to_builtins(one.counted),
    }


def _ratio(figure: _Figure, runs: Sequence[Run]) -> float | None:
    ratios = []
    for run in runs:
        ours, theirs = figure.of(run.relay), figure.of(run.yardstick)
        if ours is not None and theirs:
            ratios.append(ours / theirs)
    return median(ratios)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _expected(options: FanoutOptions) -> int:
    return options.subscribers * options.ticks * options.runs
