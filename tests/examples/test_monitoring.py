"""The monitoring example: its queries name metrics that exist, and Prometheus's own checker accepts its files."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.core.errors import Reason
from tests.support.metrics_scrape import samples, scrape
from tests.support.operators import OPERATORS
from tests.support.relay_process import running

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"

_NAME = re.compile(r"\b(?:relay|process|python)_[a-z_]+\b")
_REASON = re.compile(r'reason="([a-z_]+)"')


def expressions() -> Iterator[str]:
    """Every query of the dashboard and of the alert rules."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable["query"]
    yield from re.findall(
        r"expr: (?:>-\n)?((?:.|\n)*?)\n +(?:for|labels):", (FOLDER / "alerts.yml").read_text()
    )


async def test_every_metric_that_is_asked_for_exists(tmp_path: Path) -> None:
    """Each metric in a query exists, also the parts of histograms; with another name a panel would stay empty."""
    with running(tmp_path, extra=OPERATORS) as relay:
        async with relay.connect(await relay.token()):
            await relay.publish("prices.A", 1)
            text = (await scrape(relay)).text
    served = {name for name, _ in samples(text)}
    # a family that has no sample yet is declared all the same
    served |= {name for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE)}
    asked = {name for one in expressions() for name in _NAME.findall(one)}
    assert len(asked) > 20
    assert asked <= served


def test_every_reason_that_is_asked_for_exists() -> None:
    """Each reason in a query is one that the relay has."""
    named = {name for one in expressions() for name in _REASON.findall(one)}
    assert named
    assert named <= {reason.value for reason in Reason}


def test_promtool_takes_the_files(tmp_path: Path) -> None:
    """Prometheus's own checker accepts the files, if it is installed."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    for name in ("prometheus.yml", "alerts.yml"):
        (tmp_path / name).write_text((FOLDER / name).read_text())
    (tmp_path / "relay-operator-key").write_text("prometheus.secret")
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = (FOLDER / "alerts.yml").read_text().count("- alert: ")
    assert f"{rules} rules found" in done.stdout
