"""The report of all benchmarks: every figure in a table, and what failed in its place."""

from pathlib import Path

import pytest

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Progress
from relay.bench.benchmarks.fanout import Fanout
from relay.bench.benchmarks.mixed import Mixed
from relay.bench.benchmarks.suite import measure_all, suite
from relay.bench.report import Failed, Figure, Report, Row, document, to_json
from relay.core.errors import ConfigurationError

REPORT = Report(
    bench="fanout",
    headline="fanout: 10 subscribers, medians of 3",
    yardstick="broadcast()",
    rows=[
        Row(
            figure=Figure("cpu", "CPU µs a delivery", "cpu", ".2f", has_ratio=True),
            relay=7.5,
            yardstick=14.0,
            ratio=0.54,
        )
    ],
    notes=["The yardstick kept no pace."],
    is_whole=True,
    json={"bench": "fanout", "runs": 3},
)
FAILED = Failed(bench="mixed", sentence="The relay did not answer for 10 s.")


def test_the_report_has_tables_notes_and_the_machine() -> None:
    """What was measured, how it compares, what to doubt, and on which machine."""
    text = document([REPORT, FAILED], quick=True, replayed=False)
    assert "| CPU µs a delivery | 7.50 | 14.00 | 0.54 |" in text
    assert "10 subscribers, medians of 3." in text
    assert "- The yardstick kept no pace." in text
    assert "**Failed.** The relay did not answer for 10 s." in text
    assert "Not measured: no recorded files" in text
    assert "quick look" in text
    assert " cores, " in text
    assert "quick look" not in document([REPORT], quick=False, replayed=True)


def test_what_fails_does_not_end_the_others() -> None:
    """A benchmark that can't be made is told in its place, in JSON as well."""

    class Failing(Mixed):
        def measure(self, progress: Progress) -> Report:
            raise BenchError("It did not start.")

    class Succeeding(Fanout):
        def measure(self, progress: Progress) -> Report:
            progress("run 1 of 1, relay", 1, 2, "ticks")
            return REPORT

    told: list[str] = []
    outcomes = measure_all(
        [Failing(), Succeeding()],
        lambda what, *_: told.append(what),
    )
    assert outcomes == [Failed(bench="mixed", sentence="It did not start."), REPORT]
    assert told == ["fanout: run 1 of 1, relay"]
    benches = to_json(outcomes)["benches"]
    assert benches == [{"bench": "mixed", "error": "It did not start."}, {"bench": "fanout", "runs": 3}]


def test_without_recordings_nothing_is_replayed(tmp_path: Path) -> None:
    """The other benchmarks need nothing."""
    names = [bench.NAME for bench in suite(runs=1, quick=True, files=[])]
    assert names == [
        *("fanout", "mixed", "slow-reader", "connect", "issue", "audit", "publish", "proxy", "nodes")
    ]
    recording = tmp_path / "recording"
    with pytest.raises(ConfigurationError, match="recording can't be read"):
        suite(runs=1, quick=False, files=[recording])
    recording.touch()
    with_one = suite(runs=1, quick=False, files=[recording])
    assert [bench.NAME for bench in with_one] == [*names, "replay", "bandwidth"]
