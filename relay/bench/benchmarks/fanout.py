"""`relay bench fanout`: many subscribers of one channel, and what one delivery costs."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from relay.bench.benchmarks.delivery import DELIVERY_S, Measured, deliver, opened, patience_s
from relay.bench.benchmarks.delivery_figures import (
    COST,
    PACE,
    all_of,
    delivery_notes,
    is_whole,
    latency_figures,
    shared_write_note,
)
from relay.bench.benchmarks.runs import FILES_BESIDE, STALL_S, Progress, Run, Told, in_turn
from relay.bench.load.processes import allow_open_files
from relay.bench.load.relay_process import RunningRelay
from relay.bench.load.servers import Subject, relay_subject, yardstick_subject
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import Ticks
from relay.bench.report.report import Report, make_report

FIGURES = (*COST, *latency_figures(), *PACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FanoutOptions:
    """What to measure. `rate` is ticks a second, 0: as fast as it goes. `given`: a relay that runs already."""

    subscribers: int
    rate: float
    ticks: int
    runs: int
    given: RunningRelay | None = None
    channel: str = "prices.BENCH"


def measure_fanout(options: FanoutOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(options.subscribers + FILES_BESIDE)

    def relay(folder: Path, told: Told) -> Measured:
        ticks = _ticks(options)
        with relay_subject(folder, ticks, sessions=options.subscribers, given=options.given) as subject:
            return _measure(options, subject, ticks, folder, told)

    def yardstick(folder: Path, told: Told) -> Measured:
        ticks = _ticks(options)
        with yardstick_subject(folder, ticks) as subject:
            return _measure(options, subject, ticks, folder, told)

    return fanout_report(options, in_turn(options.runs, progress, relay=relay, yardstick=yardstick))


def fanout_report(options: FanoutOptions, runs: list[Run[Measured]]) -> Report:
    """Put the figures together."""
    pace = f"{options.rate:g} ticks/s" if options.rate else "ticks as fast as they go"
    notes = delivery_notes(runs, rate=options.rate)
    if options.rate:
        notes += shared_write_note(runs)
    return make_report(
        "fanout",
        FIGURES,
        runs,
        headline=f"fanout: {options.subscribers:,} subscribers, {pace}, {options.ticks:,} ticks, "
        f"medians of {options.runs}",
        yardstick="broadcast()",
        yardstick_is="websockets.broadcast() on uvloop",
        options={
            "subscribers": options.subscribers,
            "rate": options.rate,
            "ticks": options.ticks,
            "expected": options.subscribers * options.ticks,
        },
        notes=notes,
        is_whole=is_whole(run.relay for run in runs),
        charted=("cpu_us_a_delivery", "latency_p99_ms"),
        all_of=all_of,
    )


def _ticks(options: FanoutOptions) -> Ticks:
    return Ticks(run=secrets.token_hex(4), channels=[options.channel], rate=options.rate, count=options.ticks)


def _measure(options: FanoutOptions, subject: Subject, ticks: Ticks, folder: Path, told: Told) -> Measured:
    group = GroupOrder(target=subject.target(ticks.channels), connections=options.subscribers)
    pause_s = 3 / options.rate if options.rate else 0.0
    with opened(subject, [group], ticks, folder, ticks_each=options.ticks, pause_s=pause_s) as delivery:
        within_s = (
            patience_s(options.ticks / options.rate)
            if options.rate
            else STALL_S + DELIVERY_S * options.subscribers * options.ticks
        )
        return deliver(delivery, within_s=within_s, total=options.ticks, told=told)
