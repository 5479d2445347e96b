"""`relay bench mixed`: many subscribers, each of a few of many channels, as dashboards are.

Each delivery goes to another set of subscribers than the last one, so nothing is gained by writing the same bytes
to everybody; what can be gained is one write for all that a subscriber has waiting.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from relay.bench.benchmarks.delivery import Measured, deliver, opened, patience_s
from relay.bench.benchmarks.delivery_figures import (
    COST,
    PACE,
    all_of,
    delivery_notes,
    is_whole,
    latency_figures,
)
from relay.bench.benchmarks.runs import FILES_BESIDE, Progress, Run, Told, in_turn
from relay.bench.load.processes import allow_open_files
from relay.bench.load.servers import Subject, relay_subject, yardstick_subject
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import MANY_TOGETHER, Ticks
from relay.bench.report.report import Report, make_report
from relay.core.errors import ConfigurationError

FIGURES = (*COST, *latency_figures(), *PACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedOptions:
    """What to measure: `rate` ticks a second on all channels together, for `seconds`; prices every `interval_ms`."""

    subscribers: int
    each: int
    channels: int
    rate: float
    seconds: float
    interval_ms: int
    runs: int

    @property
    def ticks(self) -> int:
        """Ticks in all; every channel has one at least."""
        return max(self.channels, round(self.rate * self.seconds))

    @property
    def deliveries_per_s(self) -> float:
        """Deliveries a second, if the pace is kept and nothing conflated."""
        return self.rate * self.subscribers * self.each / self.channels


def measure_mixed(options: MixedOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the options contradict each other, or the machine does not allow as many open files.
    """
    if options.each > options.channels:
        raise ConfigurationError(
            f"--each {options.each} is more than there are: --channels is {options.channels}."
        )
    allow_open_files(options.subscribers + FILES_BESIDE)

    def relay(folder: Path, told: Told) -> Measured:
        ticks = _ticks(options)
        with relay_subject(folder, ticks, sessions=options.subscribers) as subject:
            return _measure(options, subject, ticks, folder, told)

    def yardstick(folder: Path, told: Told) -> Measured:
        ticks = _ticks(options)
        with yardstick_subject(folder, ticks, interval_ms=options.interval_ms) as subject:
            return _measure(options, subject, ticks, folder, told)

    return mixed_report(options, in_turn(options.runs, progress, relay=relay, yardstick=yardstick))


def mixed_report(options: MixedOptions, runs: list[Run[Measured]]) -> Report:
    """Put the figures together."""
    interval = f", intervals of {options.interval_ms} ms" if options.interval_ms else ""
    return make_report(
        "mixed",
        FIGURES,
        runs,
        headline=f"mixed: {options.subscribers:,} subscribers of {options.each} of {options.channels} channels each, "
        f"{options.rate:g} ticks/s for {options.seconds:g} s{interval}, medians of {options.runs}",
        yardstick="broadcast()",
        yardstick_is="websockets.broadcast() to each channel's subscribers, on uvloop",
        options={
            "subscribers": options.subscribers,
            "each_subscribes_to": options.each,
            "channels": options.channels,
            "rate": options.rate,
            "seconds": options.seconds,
            "interval_ms": options.interval_ms,
            "ticks": options.ticks,
            "deliveries_per_s_asked": options.deliveries_per_s,
        },
        notes=delivery_notes(runs, rate=options.rate, interval_ms=options.interval_ms),
        is_whole=is_whole(run.relay for run in runs),
        charted=("cpu_us_a_delivery", "latency_p99_ms"),
        all_of=all_of,
    )


def _ticks(options: MixedOptions) -> Ticks:
    channels = [f"prices.BENCH.{number}" for number in range(options.channels)]
    return Ticks(
        run=secrets.token_hex(4),
        channels=channels,
        rate=options.rate,
        count=options.ticks,
        together=MANY_TOGETHER,
    )


def _measure(options: MixedOptions, subject: Subject, ticks: Ticks, folder: Path, told: Told) -> Measured:
    group = GroupOrder(
        target=subject.target(ticks.channels, interval_ms=options.interval_ms),
        connections=options.subscribers,
        each=options.each,
    )
    ticks_each = max(1, options.ticks * options.each // options.channels)
    with opened(subject, [group], ticks, folder, ticks_each=ticks_each, pause_s=3 / options.rate) as delivery:
        within_s = patience_s(options.ticks / options.rate)
        return deliver(delivery, within_s=within_s, total=options.ticks, told=told)
