"""`relay bench replay`: recorded market traffic, many times as fast, to subscribers of all or some of it.

Each subscriber has two connections, as dashboards do: prices with an interval, where only the newest counts, and
trades as a stream, of which not one may be missing. Real traffic comes in bursts. The benchmark shows whether
anything is lost in them, and how late it is.
"""

import secrets
import tempfile
from collections.abc import Callable, Sequence
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
from relay.bench.benchmarks.runs import FILES_BESIDE, Progress, Run, Step, Told, in_turn
from relay.bench.load.processes import allow_open_files
from relay.bench.load.recording import PRICES, TRADES, Script, write_script
from relay.bench.load.servers import Subject, relay_subject, yardstick_subject
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import MANY_TOGETHER, Ticks
from relay.bench.report.report import Figure, Report, make_report
from relay.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What to measure: `files` at `speed` times their pace, at most `seconds` of it, prices every
    `interval_ms`, to subscribers of `each` symbols (0: of all).
    """

    files: Sequence[Path]
    speed: float
    seconds: float
    subscribers: int
    each: int
    interval_ms: int
    runs: int


def measure_replay(options: ReplayOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if a recording can't be used, or the machine does not allow as many open files.
    """
    allow_open_files(2 * options.subscribers + FILES_BESIDE)

    def told_reading(share: float) -> None:
        progress(Step(what="reading the recording", done=int(share * 100), total=100, unit="%"))

    with tempfile.TemporaryDirectory(prefix="relay-bench-") as scratch:
        script = write_script(
            options.files,
            Path(scratch) / "script",
            speed=options.speed,
            seconds=options.seconds,
            told=told_reading,
        )
        fewest = min(len(script.places(kind)) for kind in _kinds(script))
        if options.each > fewest:
            raise ConfigurationError(
                f"--each {options.each} is more than there are: the recording has {fewest}."
            )

        def relay(folder: Path, told: Told) -> Measured:
            ticks = _ticks(script)
            with relay_subject(folder, ticks, sessions=options.subscribers) as subject:
                return _measure(options, script, subject, ticks, folder, told)

        def yardstick(folder: Path, told: Told) -> Measured:
            ticks = _ticks(script)
            with yardstick_subject(folder, ticks, interval_ms=options.interval_ms) as subject:
                return _measure(options, script, subject, ticks, folder, told)

        return replay_report(
            options, script, in_turn(options.runs, progress, relay=relay, yardstick=yardstick)
        )


def replay_report(options: ReplayOptions, script: Script, runs: list[Run[Measured]]) -> Report:
    """Put the figures together."""
    rate = script.total() / script.seconds if script.seconds else 0.0
    watched = f"{options.subscribers:,} subscribers of {options.each or 'all'} symbols"
    notes = delivery_notes(runs, rate=rate, interval_ms=options.interval_ms)
    if script.malformed:
        notes.append(
            f"{script.malformed:,} lines of the recording were not of its format and are not played."
        )
    return make_report(
        "replay",
        _figures(script),
        runs,
        headline=f"replay: {script.total(PRICES):,} prices and {script.total(TRADES):,} trades in "
        f"{script.seconds:.1f} s ({options.speed:g} times as fast), {watched}, "
        f"medians of {options.runs}",
        yardstick="broadcast()",
        yardstick_is="websockets.broadcast() of the same, on uvloop; prices at the same interval",
        options={
            "files": [path.name for path in options.files],
            "speed": options.speed,
            "subscribers": options.subscribers,
            "each_subscribes_to": options.each,
            "interval_ms": options.interval_ms,
            "seconds": script.seconds,
            "prices": script.total(PRICES),
            "trades": script.total(TRADES),
            "peak_messages_per_s": script.peak_per_s,
        },
        notes=notes,
        is_whole=is_whole(run.relay for run in runs),
        charted=("trades_p99_ms", "prices_p99_ms"),
        all_of=all_of,
    )


def _figures(script: Script) -> tuple[Figure[Measured], ...]:
    """Return the figures, of both kinds of connections where there are both."""
    found: list[Figure[Measured]] = []
    for group, kind in enumerate(_kinds(script)):
        found += latency_figures(group, key=kind, name=kind)
        if kind == TRADES:
            found.append(Figure(key="trades_lost", name="trades lost", of=_of_group(group, "lost")))
            found.append(
                Figure(key="trades_repeated", name="trades repeated", of=_of_group(group, "repeated"))
            )
    peak: Figure[Measured] = Figure(
        key="peak_per_s", name="deliveries in the busiest second", of=lambda m: m.counted.peak_per_s
    )
    return (*found, *COST, peak, *PACE)


def _of_group(group: int, what: str) -> Callable[[Measured], float | None]:
    return lambda measured: getattr(measured.counted.groups[group], what)


def _kinds(script: Script) -> list[str]:
    return [kind for kind in (TRADES, PRICES) if script.places(kind)]


def _ticks(script: Script) -> Ticks:
    return Ticks(
        run=secrets.token_hex(4),
        channels=script.channels,
        script=str(script.path),
        streams=frozenset(script.places(TRADES)),
        together=MANY_TOGETHER,
    )


def _measure(
    options: ReplayOptions, script: Script, subject: Subject, ticks: Ticks, folder: Path, told: Told
) -> Measured:
    groups = []
    for kind in _kinds(script):
        places = script.places(kind)
        target = subject.target(
            [script.channels[place] for place in places],
            endpoint=kind,
            interval_ms=options.interval_ms if kind == PRICES else 0,
        )
        groups.append(
            GroupOrder(
                target=target,
                connections=options.subscribers,
                each=options.each,
                stream=kind == TRADES,
                places=places,
            )
        )
    total = script.total()
    with opened(subject, groups, ticks, folder, ticks_each=total, pause_s=script.pause_s) as delivery:
        return deliver(delivery, within_s=patience_s(script.seconds), total=total, told=told)
