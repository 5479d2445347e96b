"""The page for security teams: its commands and queries work with the relay and with jq."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from relay.core.errors import Reason
from relay.core.events import Action
from tests.support.audit_days import make_day
from tests.support.readme import ROOT

try:
    import vrl_python
except ImportError:
    vrl_python = None  # type: ignore[assignment]  # a wheel that not every platform has

PAGE = (ROOT / "examples/audit/README.md").read_text()

_NOTES = ("Known up to ", "The log ", "A begins before the log", "B begins before the log")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, and settings to compare it with."""
    folder = tmp_path_factory.mktemp("page")
    make_day(folder / "audit.jsonl", tokens=300)
    (folder / "next.toml").write_text('[grants]\nguest.prices = ["prices.BTC-USD"]\n')
    return folder


@pytest.mark.parametrize(
    "command",
    [line.partition("#")[0].strip() for line in PAGE.splitlines() if line.startswith("relay audit")],
)
def test_the_commands_of_the_audit_page_run(folder: Path, command: str) -> None:
    """Each command runs as it is shown; the one that follows the log is ended by its own option."""
    words = shlex.split(command.partition(" > ")[0])[1:] + (["--no-follow"] if " tail " in command else [])
    words = ["jti-0" if word.endswith("-or-user") else word for word in words]
    result = subprocess.run(
        [sys.executable, "-m", "relay", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # a question says there up to which record it knows the log, and what the log does not have
    notes = [line for line in result.stderr.splitlines() if not line.startswith(_NOTES)]
    assert (result.returncode, notes) == (0, [])
    assert result.stdout or (folder / "report.html").stat().st_size


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize("command", re.findall(r"^jq -r '(.*)' audit.jsonl$", PAGE, re.MULTILINE))
def test_its_jq_queries_find_something(folder: Path, command: str) -> None:
    """Both queries find a replayed token."""
    result = subprocess.run(
        ["jq", "-r", command, "audit.jsonl"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert result.stdout.count("\n") >= 1


def test_its_queries_name_actions_and_reasons_that_exist() -> None:
    """The queries for Kibana, Loki and Splunk name actions, reasons and fields that records have."""
    queries = PAGE[PAGE.index("In Kibana:") :]
    named = set(re.findall(r'"?([a-z]+\.[a-z]+|[a-z]+_[a-z]+)"?', queries))
    known = set(Action) | set(Reason) | {"event.action", "event.reason", "user.id", "relay.endpoint"}
    assert named - known <= {"event_action", "event_reason"}


def test_the_shipper_names_the_logs_files() -> None:
    """Vector reads the current file and the older ones."""
    text = (ROOT / "examples/audit/vector.yaml").read_text()
    assert "audit.jsonl" in text
    assert "audit-*.jsonl" in text


@pytest.mark.skipif(vrl_python is None, reason="vrl-python is not installed: it has wheels for Linux only")
def test_the_shipper_passes_records_on_whole(folder: Path) -> None:
    """Vector's own code runs the example: a record keeps its line, and a line that is no record stays as it is."""
    text = (ROOT / "examples/audit/vector.yaml").read_text()
    program = textwrap.dedent(text.partition("source: |\n")[2].partition("\nsinks:")[0])
    runtime = vrl_python.VRLRuntime("UTC")
    records = (folder / "audit.jsonl").read_text().splitlines()
    assert len(records) > 300
    for line in records:
        event = runtime.execute(program, {"message": line, "file": "audit.jsonl"}).processed_event
        assert event == json.loads(line) | {"message": line}
    for torn in ('{"event": {', "[1]", '"text"', "", "no JSON"):
        before = {"message": torn, "file": "audit.jsonl"}
        assert runtime.execute(program, before).processed_event == before
