"""A database that is opened on a thread while the modules of a command are imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from relay.audit.index import opening
from relay.audit.index.native import duckdb

STUCK = """
import threading
from relay.audit.index import opening
opening._opened = threading.Event().wait
from relay.__main__ import main
main()
"""


def test_what_was_begun_is_returned_once() -> None:
    """The next call has that database, and the one after it another, both with the same settings."""
    opening.begin()
    databases = [opening.opened() for _ in range(2)]
    databases[0].execute("CREATE TABLE own (a INT)")
    with pytest.raises(duckdb.CatalogException):
        databases[1].execute("FROM own")
    settings = "SELECT current_setting('threads'), current_setting('autoload_known_extensions')"
    assert [database.execute(settings).fetchall() for database in databases] == [[(2, False)]] * 2


def test_what_fails_is_raised_where_the_database_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread says nothing."""
    monkeypatch.setattr(opening, "_CONFIG", {"threads": "many"})
    opening.begin()
    with pytest.raises(duckdb.Error, match="many"):
        opening.opened()


def test_a_command_that_fails_waits_for_no_database(tmp_path: Path) -> None:
    """After Ctrl-C during an import, the thread may wait for that module without an end."""
    command = [sys.executable, "-c", STUCK, "audit", "why", "--file", str(tmp_path / "none.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "there is no such audit log" in done.stderr
