"""The figures of `relay bench connect`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from relay.bench.benchmarks.connect import BURST, QUIET, Bursts, ConnectOptions, run_connect
from relay.bench.benchmarks.delivery_figures import all_of as all_of_delivery
from relay.bench.benchmarks.delivery_figures import is_whole, loss_notes
from relay.bench.benchmarks.runs import Progress, Run
from relay.bench.load.connections import Connecting
from relay.bench.report.report import Figure, Report, busy_note, make_report

FEW = 500
"""Fewer connections fit into memory that a server has taken at its start."""

_Of = Callable[[Bursts], float | None]


def _each(of: Callable[[Connecting], float], per: Callable[[Connecting], float], unit: float = 1.0) -> _Of:
    """Return how to find what something took, or how many there were, for each of something else."""

    def found(side: Bursts) -> float | None:
        divisor = per(side.alone)
        return of(side.alone) / divisor * unit if divisor else None

    return found


def _latency(window: int, what: str) -> _Of:
    def found(side: Bursts) -> float | None:
        latency = side.latency(window)
        return None if latency is None else getattr(latency, what)

    return found


FIGURES: tuple[Figure[Bursts], ...] = (
    Figure(
        key="cpu_us_a_connect",
        name="CPU µs a connect",
        of=_each(lambda c: c.connects_cpu_s, lambda c: c.connections, 1e6),
        has_ratio=True,
    ),
    Figure(
        key="connects_per_s",
        name="connects/s",
        of=_each(lambda c: c.connections, lambda c: c.connects_s),
        has_ratio=True,
    ),
    Figure(key="connect_p50_ms", name="connect p50 ms", of=lambda b: b.alone.connect_p50_ms, form=".1f"),
    Figure(key="connect_p99_ms", name="connect p99 ms", of=lambda b: b.alone.connect_p99_ms, form=".1f"),
    Figure(
        key="memory_kib_a_connection",
        name="memory KiB a connection",
        of=_each(lambda c: c.memory_bytes, lambda c: c.connections, 1 / 1024),
        form=",.1f",
        has_ratio=True,
    ),
    Figure(
        key="cpu_us_a_token",
        name="CPU µs a token",
        of=_each(lambda c: c.tokens_cpu_s, lambda c: c.tokens, 1e6),
    ),
    Figure(
        key="tokens_per_s",
        name="tokens/s",
        of=lambda b: b.alone.tokens / b.alone.tokens_s if b.alone.tokens else None,
    ),
    Figure(key="quiet_p50_ms", name="prices p50 ms, before", of=_latency(QUIET, "p50_ms"), form=".1f"),
    Figure(key="burst_p50_ms", name="prices p50 ms, in the burst", of=_latency(BURST, "p50_ms"), form=".1f"),
    Figure(key="quiet_p99_ms", name="prices p99 ms, before", of=_latency(QUIET, "p99_ms"), form=".1f"),
    Figure(key="burst_p99_ms", name="prices p99 ms, in the burst", of=_latency(BURST, "p99_ms"), form=".1f"),
    Figure(key="burst_max_ms", name="prices max ms, in the burst", of=_latency(BURST, "max_ms"), form=".1f"),
    Figure(
        key="burst_connects_per_s",
        name="connects/s, with tokens, beside prices",
        of=lambda b: None if b.beside is None else b.beside.connections / b.beside.wall_s,
    ),
    Figure(
        key="burst_in_p50_ms",
        name="in after ms, p50, all at once",
        of=lambda b: None if b.beside is None else b.beside.p50_ms,
    ),
    Figure(
        key="burst_in_max_ms",
        name="in after ms, the last",
        of=lambda b: None if b.beside is None else b.beside.max_ms,
    ),
    Figure(
        key="burst_refused",
        name="told to wait or to try again",
        of=lambda b: None if b.beside is None else sum(b.beside.refusals.values()),
    ),
    Figure(
        key="newcomers_lost",
        name="newcomers lost",
        of=lambda b: None if b.beside is None else b.beside.lost,
    ),
    Figure(
        key="newcomers_cores",
        name="newcomers' own CPU, cores",
        of=lambda b: b.alone.cpu_s / b.alone.wall_s,
        form=".2f",
    ),
    Figure(key="lost", name="prices: lost", of=lambda b: b.held.counted.lost if b.held else None),
    Figure(key="repeated", name="prices: repeated", of=lambda b: b.held.counted.repeated if b.held else None),
)


def measure_connect(options: ConnectOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    return connect_report(options, run_connect(options, progress))


def connect_report(options: ConnectOptions, runs: Sequence[Run[Bursts]]) -> Report:
    """Put the figures together."""
    beside = (
        f", then all at once beside {options.hold:,} subscribers of {options.rate:g} ticks/s"
        if options.hold
        else ""
    )
    notes = []
    for side, bursts in (
        ("relay", [run.relay for run in runs]),
        ("yardstick", [run.yardstick for run in runs]),
    ):
        notes += busy_note(side, [one.alone.cpu_s / one.alone.wall_s for one in bursts], who="The newcomers")
        held = [one.held for one in bursts if one.held is not None]
        notes += busy_note(side, [one.load_cores for one in held])
        refusals = sum((Counter(one.beside.refusals) for one in bursts if one.beside), Counter[str]())
        if refusals:
            told = ", ".join(f"{what} ({count:,})" for what, count in refusals.most_common(4))
            notes.append(f"Newcomers of the {side} had to wait or to try again: {told}.")
        notes += loss_notes(side, held)
    if options.connections < FEW:
        notes.append(f"Memory a connection says little with fewer than {FEW} of them.")
    return make_report(
        "connect",
        FIGURES,
        runs,
        headline=f"connect: {options.connections:,} connections, {options.parallel} at a time{beside}, "
        f"medians of {options.runs}",
        yardstick="no checks",
        yardstick_is="a websockets server on uvloop that checks nothing",
        options={
            "connections": options.connections,
            "parallel": options.parallel,
            "hold": options.hold,
            "rate": options.rate,
            "quiet_s": options.quiet_s,
        },
        notes=notes,
        is_whole=is_whole([run.relay.held for run in runs if run.relay.held is not None])
        and not any(run.relay.beside.lost for run in runs if run.relay.beside is not None),
        charted=("cpu_us_a_connect", "burst_p99_ms"),
        all_of=all_of,
    )


def all_of(side: Bursts) -> Mapping[str, Any]:
    """Return everything about one side of one run that JSON can hold."""
    return {
        "alone": msgspec.to_builtins(side.alone),
        "beside": msgspec.to_builtins(side.beside),
        "held": None if side.held is None else all_of_delivery(side.held),
    }
