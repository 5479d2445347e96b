"""The figures of `relay bench slow-reader`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from relay.bench.benchmarks.delivery_figures import all_of as all_of_delivery
from relay.bench.benchmarks.delivery_figures import is_whole, loss_notes, pace_notes
from relay.bench.benchmarks.runs import Progress, Run
from relay.bench.benchmarks.slow_reader import (
    ALONE,
    BESIDE_SLOW,
    BESIDE_STOPPED,
    SlowReaderOptions,
    SlowReading,
    run_slow_reader,
)
from relay.bench.report.report import Figure, Report, busy_note, make_report

AGEING_MS_PER_S = 50.0
"""From here on a reader's prices are called ageing: below it is the noise of a second's reads."""


def _window(window: int, what: str) -> Callable[[SlowReading], float | None]:
    def of(side: SlowReading) -> float | None:
        latency = side.fast(window)
        return None if latency is None else getattr(latency, what)

    return of


FIGURES: tuple[Figure[SlowReading], ...] = (
    Figure(key="age_p50_ms", name="slow reader: age p50 ms", of=lambda s: s.read.age_p50_ms, has_ratio=True),
    Figure(key="age_max_ms", name="slow reader: age max ms", of=lambda s: s.read.age_max_ms, has_ratio=True),
    Figure(
        key="ageing_ms_per_s",
        name="slow reader: ageing, ms a second",
        of=lambda s: s.read.ageing_ms_per_s,
        form=",.1f",
    ),
    Figure(
        key="slow_bytes_per_s",
        name="slow reader: bytes/s read",
        of=lambda s: s.read.bytes / s.read.seconds if s.read.seconds else None,
    ),
    Figure(key="alone_p50_ms", name="others p50 ms, alone", of=_window(ALONE, "p50_ms"), form=".1f"),
    Figure(
        key="beside_p50_ms", name="others p50 ms, beside it", of=_window(BESIDE_SLOW, "p50_ms"), form=".1f"
    ),
    Figure(key="alone_p99_ms", name="others p99 ms, alone", of=_window(ALONE, "p99_ms"), form=".1f"),
    Figure(
        key="beside_p99_ms", name="others p99 ms, beside it", of=_window(BESIDE_SLOW, "p99_ms"), form=".1f"
    ),
    Figure(
        key="beside_stopped_p99_ms",
        name="others p99 ms, beside a stopped one",
        of=_window(BESIDE_STOPPED, "p99_ms"),
        form=".1f",
    ),
    Figure(
        key="stopped_closed_after_s",
        name="stopped reader: dropped after s",
        of=lambda s: s.stopped.closed_after_s if s.stopped else None,
        form=".1f",
    ),
    Figure(
        key="stopped_memory_kib",
        name="stopped reader: memory KiB",
        of=lambda s: s.stopped.memory_bytes / 1024 if s.stopped else None,
    ),
    Figure(
        key="published_per_s",
        name="ticks/s published",
        of=lambda s: s.measured.published_per_s,
        form=",.1f",
    ),
    Figure(key="server_cores", name="server CPU, cores", of=lambda s: s.measured.server_cores, form=".2f"),
    Figure(
        key="load_generator_cores",
        name="load generator CPU, cores",
        of=lambda s: s.measured.load_cores,
        form=".2f",
    ),
    Figure(key="lost", name="others: lost", of=lambda s: s.measured.counted.lost),
    Figure(key="repeated", name="others: repeated", of=lambda s: s.measured.counted.repeated),
)


def measure_slow_reader(options: SlowReaderOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    return slow_reader_report(options, run_slow_reader(options, progress))


def slow_reader_report(options: SlowReaderOptions, runs: Sequence[Run[SlowReading]]) -> Report:
    """Put the figures together."""
    return make_report(
        "slow-reader",
        FIGURES,
        runs,
        headline=f"slow-reader: {options.rate_bytes:,} bytes/s of {options.rate:g} ticks/s for {options.seconds:g} s, "
        f"beside {options.readers:,} fast readers, medians of {options.runs}",
        yardstick="broadcast()",
        yardstick_is="websockets.broadcast() on uvloop, which waits for nobody",
        options={
            "readers": options.readers,
            "rate": options.rate,
            "rate_bytes": options.rate_bytes,
            "alone_s": options.alone_s,
            "seconds": options.seconds,
            "stopped_s": options.stopped_s,
        },
        notes=_notes(options, runs),
        is_whole=is_whole(run.relay.measured for run in runs),
        charted=("age_p50_ms", "beside_p99_ms"),
        all_of=_all_of,
    )


def _notes(options: SlowReaderOptions, runs: Sequence[Run[SlowReading]]) -> list[str]:
    found = []
    for side, ones in (
        ("relay", [run.relay for run in runs]),
        ("yardstick", [run.yardstick for run in runs]),
    ):
        measured = [one.measured for one in ones]
        found += busy_note(side, [one.load_cores for one in measured])
        found += pace_notes(side, measured, options.rate)
        ageing = max((one.read.ageing_ms_per_s or 0.0) for one in ones)
        if ageing > AGEING_MS_PER_S:
            found.append(
                f"The {side}'s prices were still ageing when the slow reader ended, by {ageing:,.0f} ms a second."
            )
        found += [f"Of the {side}: {one.read.closed}" for one in ones if one.read.closed][:1]
        if any(one.stopped and one.stopped.closed_after_s is None for one in ones):
            found.append(f"The {side} did not drop the reader that stopped, in {options.stopped_s:g} s.")
        found += loss_notes(side, measured)
    return found


def _all_of(side: SlowReading) -> Mapping[str, Any]:
    return {
        **all_of_delivery(side.measured),
        "read": msgspec.to_builtins(side.read),
        "stopped": None
        if side.stopped is None
        else {"closed_after_s": side.stopped.closed_after_s, "memory_bytes": side.stopped.memory_bytes},
    }
