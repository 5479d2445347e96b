"""`relay bench audit`: what the audit log costs a connection.

The yardstick is the same relay without the log: its connections are not looked at for anomalies, counted or recorded.
The two differ by a few per cent, so there are more runs than elsewhere, and the cost is the median of the runs'
differences. A delivery has no record, and so no share of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relay.bench.benchmarks.connect import IDLE, Bursts, connect_all
from relay.bench.benchmarks.connect_figures import FIGURES, all_of
from relay.bench.benchmarks.runs import FILES_BESIDE, Progress, Run, Told, in_turn
from relay.bench.load import connections as connecting
from relay.bench.load.processes import allow_open_files
from relay.bench.load.relay_process import own_relay
from relay.bench.report.report import Report, busy_note, make_report, median

FEW = 2000
"""Fewer connections are measured in too few steps: the CPU of a process is counted in 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What to measure: `connections`, of which `parallel` are on their way at any time."""

    connections: int
    parallel: int
    runs: int


def _cpu_us(side: Bursts) -> float:
    return side.alone.connects_cpu_s / side.alone.connections * 1e6


def measure_audit(options: AuditOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(options.connections + FILES_BESIDE)

    def relay(folder: Path, told: Told) -> Bursts:
        return _measure(options, "relay", folder, told)

    def yardstick(folder: Path, told: Told) -> Bursts:
        return _measure(options, "relay.bench.load.unaudited_relay", folder, told)

    return audit_report(options, in_turn(options.runs, progress, relay=relay, yardstick=yardstick))


def _measure(options: AuditOptions, program: str, folder: Path, told: Told) -> Bursts:
    with own_relay(folder, sessions=options.connections, program=program) as running:
        assert running.pid is not None
        order = connecting.Order(
            target=running.target([IDLE]),
            connections=options.connections,
            parallel=options.parallel,
            first=0,
            pid=running.pid,
        )
        alone = connect_all(order, folder, told=lambda done: told(done, options.connections, "connections"))
        return Bursts(alone=alone, beside=None, held=None)


def audit_report(options: AuditOptions, runs: Sequence[Run[Bursts]]) -> Report:
    """Put the figures together."""
    differences = [_cpu_us(run.relay) - _cpu_us(run.yardstick) for run in runs]
    cost = median(differences)
    spread = f", {min(differences):.0f} to {max(differences):.0f} in single runs" if len(runs) > 1 else ""
    notes = [f"The audit log costs a connection {cost:.0f} µs of CPU{spread}."]
    for side, bursts in (
        ("relay", [run.relay for run in runs]),
        ("yardstick", [run.yardstick for run in runs]),
    ):
        notes += busy_note(side, [one.alone.cpu_s / one.alone.wall_s for one in bursts], who="The newcomers")
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
        all_of=all_of,
    )
    return replace(report, json={**report.json, "audit_us_a_connect": cost})
