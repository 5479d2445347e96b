"""The report of all benchmarks: every figure in a table, what failed in its place, and a chart that is SVG."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Progress, Step
from relay.bench.benchmarks.fanout import Fanout
from relay.bench.benchmarks.mixed import Mixed
from relay.bench.benchmarks.suite import measure_all, suite
from relay.bench.report.chart import chart
from relay.bench.report.document import check_writable, document, to_json, write_document
from relay.bench.report.report import Failed, Report, Row
from relay.core.errors import ConfigurationError

REPORT = Report(
    bench="fanout",
    headline="fanout: 10 subscribers, medians of 3",
    yardstick="broadcast()",
    rows=[
        Row(
            name="CPU µs <a> delivery",
            relay=7.5,
            yardstick=14.0,
            ratio=0.54,
            form=".2f",
            has_ratio=True,
            charted=True,
        )
    ],
    notes=["The yardstick kept no pace."],
    is_whole=True,
    json={"bench": "fanout", "runs": 3},
)
FAILED = Failed(bench="mixed", sentence="The relay did not answer for 10 s.")
SVG = "{http://www.w3.org/2000/svg}"


def test_the_report_has_tables_notes_and_the_machine() -> None:
    """What was measured, how it compares, what to doubt, and on which machine."""
    text = document([REPORT, FAILED], "report.svg", quick=True, replayed=False)
    assert "| CPU µs <a> delivery | 7.50 | 14.00 | 0.54 |" in text
    assert "10 subscribers, medians of 3." in text
    assert "- The yardstick kept no pace." in text
    assert "**Failed.** The relay did not answer for 10 s." in text
    assert "Not measured: no recorded files" in text
    assert "quick look" in text
    assert "![The figures below as bars](report.svg)" in text
    assert " cores, " in text
    assert "quick look" not in document([REPORT], "report.svg", quick=False, replayed=True)


def test_the_chart_is_svg_that_can_be_read_aloud() -> None:
    """Well-formed, with bars in proportion, numbers beside them, both colour schemes, and the figures in words."""
    root = ET.fromstring(chart([REPORT]))
    bars = {
        element.get("class"): float(element.get("width", "0"))
        for element in root.iter(f"{SVG}rect")
        if element.get("x") == "250"
    }
    assert bars["relay"] / bars["yardstick"] == pytest.approx(7.5 / 14, abs=0.01)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert {"7.50", "14.00", "CPU µs <a> delivery"} <= set(words)
    assert "prefers-color-scheme: dark" in chart([REPORT])
    described = root.find(f"{SVG}desc")
    assert described is not None
    assert described.text == "fanout, CPU µs <a> delivery: relay 7.50, yardstick 14.00."


def test_the_chart_leaves_out_what_is_unknown() -> None:
    """A figure that the yardstick does not have is said to be unknown; without the relay's there is no bar."""
    rows = [
        Row(name="half", relay=1.0, yardstick=None, form=".1f", charted=True),
        Row(name="none", relay=None, yardstick=1.0, form=".1f", charted=True),
        Row(name="zero", relay=0.0, yardstick=0.0, form=".1f", charted=True),
    ]
    changed = Report(bench="x", headline="", yardstick="", rows=rows, notes=[], is_whole=True, json={})
    words = [element.text for element in ET.fromstring(chart([changed])).iter(f"{SVG}text")]
    assert "unknown" in words
    assert "half" in words
    assert "none" not in words
    assert words.count("0.0") == 2
    ET.fromstring(chart([]))


def test_both_files_are_written(tmp_path: Path) -> None:
    """The chart goes beside the report, under the name that the report links to."""
    path = tmp_path / "report.md"
    picture = write_document([REPORT], path, quick=False, replayed=True)
    assert picture == tmp_path / "report.svg"
    assert "(report.svg)" in path.read_text("utf-8")
    ET.fromstring(picture.read_text("utf-8"))


def test_a_place_that_can_not_be_written_is_told_before(tmp_path: Path) -> None:
    """A missing folder is an error before the first run; the check leaves no file."""
    with pytest.raises(ConfigurationError, match="can't be written: No such file or directory"):
        check_writable(tmp_path / "nowhere" / "report.md")
    with pytest.raises(ConfigurationError, match="the report is Markdown"):
        check_writable(tmp_path / "report.svg")
    check_writable(tmp_path / "report.md")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_does_not_end_the_others() -> None:
    """A benchmark that can't be made is told in its place, in JSON as well."""

    class Failing(Mixed):
        def measure(self, progress: Progress) -> Report:
            raise BenchError("It did not start.")

    class Succeeding(Fanout):
        def measure(self, progress: Progress) -> Report:
            progress(Step(what="run 1 of 1, relay", done=1, total=2, unit="ticks"))
            return REPORT

    told: list[str] = []
    outcomes = measure_all(
        [Failing(), Succeeding()],
        lambda step: told.append(step.what),
    )
    assert outcomes == [Failed(bench="mixed", sentence="It did not start."), REPORT]
    assert told == ["fanout: run 1 of 1, relay"]
    benches = to_json(outcomes)["benches"]
    assert benches == [{"bench": "mixed", "error": "It did not start."}, {"bench": "fanout", "runs": 3}]


def test_without_recordings_there_is_no_replay(tmp_path: Path) -> None:
    """The other benchmarks need nothing."""
    names = [bench.NAME for bench in suite(runs=1, quick=True, files=[])]
    assert names == ["fanout", "mixed", "slow-reader", "connect", "issue", "audit", "publish"]
    recording = tmp_path / "recording"
    with pytest.raises(ConfigurationError, match="recording can't be read"):
        suite(runs=1, quick=False, files=[recording])
    recording.touch()
    with_one = suite(runs=1, quick=False, files=[recording])
    assert [bench.NAME for bench in with_one] == [*names, "replay"]
