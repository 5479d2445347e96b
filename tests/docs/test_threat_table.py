"""Each control and each test in the table of threats exists."""

import importlib
import re
from pathlib import Path

import pytest

from tests.support import readme

TESTS = Path(__file__).parents[1]
SECTION = re.compile(r"<!-- threats -->\n(.*?)<!-- /threats -->", re.DOTALL)


def rows() -> list[list[str]]:
    """Return the table's cells, one list per threat."""
    found = SECTION.search((readme.ROOT / "relay/SECURITY.md").read_text("utf-8"))
    assert found is not None
    lines = found[1].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_threat_has_a_control_and_a_test(row: list[str]) -> None:
    """Each row names code that exists, and tests that exist."""
    threat, control, test = row
    assert threat
    controls = re.findall(r"`(relay[\w.]*):([\w.]+)`", control)
    assert controls, "no control"
    for module, path in controls:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found)
    tests = re.findall(r"`([\w/]+\.py)`", test)
    assert tests, "no test"
    for name in tests:
        assert "\ndef test_" in (text := (TESTS / name).read_text("utf-8")) or "\nasync def test_" in text


def test_every_abuse_is_in_the_table() -> None:
    """Each test of an abuse belongs to a row of the table."""
    named = {name for row in rows() for name in re.findall(r"hardening/(test_\w+\.py)", row[2])}
    assert {path.name for path in (TESTS / "hardening").glob("test_*.py")} == named
