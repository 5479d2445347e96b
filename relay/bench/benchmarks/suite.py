"""All benchmarks one after the other, for `relay bench all`. One that fails does not end the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relay.bench import BenchError
from relay.bench.benchmarks.audit import AuditOptions, measure_audit
from relay.bench.benchmarks.connect import ConnectOptions
from relay.bench.benchmarks.connect_figures import measure_connect
from relay.bench.benchmarks.fanout import FanoutOptions, measure_fanout
from relay.bench.benchmarks.issue import IssueOptions, measure_issue
from relay.bench.benchmarks.mixed import MixedOptions, measure_mixed
from relay.bench.benchmarks.publish import PublishOptions, measure_publish
from relay.bench.benchmarks.replay import ReplayOptions, measure_replay
from relay.bench.benchmarks.runs import Progress, Step
from relay.bench.benchmarks.slow_reader import SlowReaderOptions
from relay.bench.benchmarks.slow_reader_figures import measure_slow_reader
from relay.bench.report.report import Report
from relay.core.errors import ConfigurationError
from relay.recordings import Replay

QUICK_S = 5.0
"""Seconds of a recording that a quick look plays."""
RECORDING_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A benchmark that is ready to be measured."""

    name: str
    measure: Callable[[Progress], Report]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A benchmark that could not be made, and why."""

    bench: str
    sentence: str


Outcome = Report | Failed


def suite(*, runs: int, quick: bool, recordings: Sequence[Path]) -> list[Bench]:
    """Return all benchmarks. Without `recordings` there is no replay; `quick` is a look of a minute or two at all.

    Raises:
        ConfigurationError: if a recording can't be read: nobody should wait twenty minutes to learn that.
    """
    if recordings:
        Replay(recordings)
    fanout = FanoutOptions(subscribers=1000, rate=100, ticks=500, runs=runs)
    mixed = MixedOptions(
        subscribers=1000, each=20, channels=500, rate=5000, seconds=10, interval_ms=0, runs=runs
    )
    slow = SlowReaderOptions(
        readers=200, rate=1000, rate_bytes=20_000, alone_s=5, seconds=20, stopped_s=40, runs=runs
    )
    connect = ConnectOptions(connections=2000, parallel=50, hold=1000, rate=10, quiet_s=5, runs=runs)
    issue = IssueOptions(requests=10_000, parallel=50, at_once=15_000, runs=runs)
    audit = AuditOptions(connections=5000, parallel=50, runs=runs)
    publish = PublishOptions(messages=200_000, channels=10, rate=0, singles=5000, runs=runs)
    replay = ReplayOptions(
        files=recordings,
        speed=10,
        seconds=RECORDING_S,
        subscribers=1000,
        each=0,
        interval_ms=100,
        runs=runs,
    )
    if quick:
        fanout = replace(fanout, subscribers=200, ticks=200)
        mixed = replace(mixed, subscribers=200, each=10, channels=100, rate=1000, seconds=2)
        slow = replace(slow, readers=50, alone_s=2, seconds=6, stopped_s=0)
        connect = replace(connect, connections=500, hold=100, quiet_s=2)
        issue = replace(issue, requests=2000, at_once=2000)
        audit = replace(audit, connections=2000)
        publish = replace(publish, messages=20_000, singles=500)
        replay = replace(replay, seconds=QUICK_S, subscribers=100)
    found = [
        Bench(name="fanout", measure=lambda progress: measure_fanout(fanout, progress)),
        Bench(name="mixed", measure=lambda progress: measure_mixed(mixed, progress)),
        Bench(name="slow-reader", measure=lambda progress: measure_slow_reader(slow, progress)),
        Bench(name="connect", measure=lambda progress: measure_connect(connect, progress)),
        Bench(name="issue", measure=lambda progress: measure_issue(issue, progress)),
        Bench(name="audit", measure=lambda progress: measure_audit(audit, progress)),
        Bench(name="publish", measure=lambda progress: measure_publish(publish, progress)),
    ]
    if recordings:
        found.append(Bench(name="replay", measure=lambda progress: measure_replay(replay, progress)))
    return found


def measure_all(benches: Sequence[Bench], progress: Progress) -> list[Outcome]:
    """Make all of them; one that can't be made, here or with these files, is told in its place."""
    found: list[Outcome] = []
    for bench in benches:

        def told(step: Step, name: str = bench.name) -> None:
            progress(replace(step, what=f"{name}: {step.what}"))

        try:
            found.append(bench.measure(told))
        except (BenchError, ConfigurationError) as error:
            found.append(Failed(bench=bench.name, sentence=str(error)))
    return found
