"""`relay bench audit`: what the audit log costs a connection.

The yardstick is the same relay without the log: its connections are not looked at for anomalies, counted or recorded.
The two differ by a few per cent, so there are more runs than elsewhere, and the cost is the median of the runs'
differences. A delivery has no record, and so no share of it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from relay.bench import connecting
from relay.bench.connect import IDLE, connect_all
from relay.bench.connecting import Connecting
from relay.bench.processes import allow_open_files
from relay.bench.relays import own_relay
from relay.bench.report import Figure, Report, busy_note, make_report, median
from relay.bench.turns import FILES_BESIDE, Progress, Run, Told, in_turn

FEW = 2000
"""Fewer connections are measured in too few steps: the CPU of a process is counted in 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What to measure: `connections`, of which `parallel` are on their way at any time."""

    connections: int
    parallel: int
    runs: int


def _cpu_us(side: Connecting) -> float:
    return side.connects_cpu_s / side.connections * 1e6


FIGURES: tuple[Figure[Connecting], ...] = (
    Figure(key="cpu_us_a_connect", name="CPU µs a connect", of=_cpu_us, has_ratio=True),
    Figure(
        key="connects_per_s",
        name="connects/s",
        of=lambda side: side.connections / side.connects_s,
        has_ratio=True,
    ),
    Figure(
        key="memory_kib_a_connection",
        name="memory KiB a connection",
        of=lambda side: side.memory_bytes / side.connections / 1024,
        form=",.1f",
    ),
)


def measure_audit(options: AuditOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(options.connections + FILES_BESIDE)

    def relay(folder: Path, told: Told) -> Connecting:
        return _measure(options, "relay", folder, told)

    def yardstick(folder: Path, told: Told) -> Connecting:
        return _measure(options, "relay.bench.unlogged", folder, told)

    return audit_report(options, in_turn(options.runs, progress, relay=relay, yardstick=yardstick))


def _measure(options: AuditOptions, program: str, folder: Path, told: Told) -> Connecting:
    with own_relay(folder, sessions=options.connections, program=program) as running:
        assert running.pid is not None
        order = connecting.Order(
            target=running.target([IDLE]),
            connections=options.connections,
            parallel=options.parallel,
            first=0,
            pid=running.pid,
        )
        return connect_all(order, folder, told=lambda done: told(done, options.connections, "connections"))


def audit_report(options: AuditOptions, runs: list[Run[Connecting]]) -> Report:
    """Put the figures together."""
    differences = [_cpu_us(run.relay) - _cpu_us(run.yardstick) for run in runs]
    cost = median(differences)
    spread = f", {min(differences):.0f} to {max(differences):.0f} in single runs" if len(runs) > 1 else ""
    notes = [f"The audit log costs a connection {cost:.0f} µs of CPU{spread}."]
    for side, ones in (
        ("relay", [run.relay for run in runs]),
        ("yardstick", [run.yardstick for run in runs]),
    ):
        notes += busy_note(side, [one.cpu_s / one.wall_s for one in ones], who="The newcomers")
    if options.connections < FEW:
        notes.append(f"The difference says little with fewer than {FEW:,} connections.")
    report = make_report(
        "audit",
        FIGURES,
        runs,
        headline=f"audit: {options.connections:,} connections, {options.parallel} at a time, "
        f"medians of {options.runs}",
        yardstick="no log",
        yardstick_is="the same relay, whose audit log hears of no connection",
        options={"connections": options.connections, "parallel": options.parallel},
        notes=notes,
        is_whole=True,
        charted=("cpu_us_a_connect",),
        all_of=msgspec.to_builtins,
    )
    return replace(report, json={**report.json, "audit_us_a_connect": cost})
