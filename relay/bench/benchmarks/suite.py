"""All benchmarks: their list, and `relay bench all`, in which one that fails does not end the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay import recordings
from relay.bench import BenchError
from relay.bench.benchmarks.audit import Audit
from relay.bench.benchmarks.bandwidth import Bandwidth
from relay.bench.benchmarks.benchmark import Benchmark, Progress
from relay.bench.benchmarks.connect import Connect
from relay.bench.benchmarks.fanout import Fanout
from relay.bench.benchmarks.issue import Issue
from relay.bench.benchmarks.mixed import Mixed
from relay.bench.benchmarks.nodes import Nodes
from relay.bench.benchmarks.proxy import Proxy
from relay.bench.benchmarks.publish import Publish
from relay.bench.benchmarks.replay import Replay
from relay.bench.benchmarks.slow_reader import SlowReader
from relay.bench.report import Failed, Outcome
from relay.core.errors import ConfigurationError

Kind = type[Benchmark[Any]]
RECORDED: tuple[Kind, ...] = (Replay, Bandwidth)
BENCHMARKS: tuple[Kind, ...] = (
    Fanout,
    Mixed,
    SlowReader,
    Connect,
    Issue,
    Audit,
    Publish,
    Proxy,
    Nodes,
    *RECORDED,
)
"""In the order of `relay bench all`."""


def suite(*, runs: int, quick: bool, files: Sequence[Path]) -> list[Benchmark[Any]]:
    """Return all, small if `quick`; `RECORDED` need `files`. Raises ConfigurationError if one can't be read."""
    if files:
        recordings.Replay(files)
    found: list[Benchmark[Any]] = []
    for kind in BENCHMARKS:
        options: dict[str, Any] = dict(kind.QUICK) if quick else {}
        if kind in RECORDED:
            options["files"] = list(files)
        if kind not in RECORDED or files:
            found.append(kind(runs=runs, **options))
    return found


def measure_all(benchmarks: Sequence[Benchmark[Any]], progress: Progress) -> list[Outcome]:
    """Measure all of them; one that can't be made, here or with these files, has its error in its place."""
    found: list[Outcome] = []
    for benchmark in benchmarks:

        def show(what: str, done: int, total: int, unit: str, name: str = benchmark.NAME) -> None:
            progress(f"{name}: {what}", done, total, unit)

        try:
            found.append(benchmark.measure(show))
        except (BenchError, ConfigurationError) as error:
            found.append(Failed(bench=benchmark.NAME, sentence=str(error)))
    return found
