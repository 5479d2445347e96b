"""Tables: at 80 and 120 columns, and in a pipe, nothing that somebody copies is broken."""

import os
import pty
import re
import subprocess
import sys

import pytest

PRINT = """
from relay.cli.tables import print_table
print_table(("at", "jti", "count"), [("2026-11-26T12:00:00.000Z", "j" * 22, "1"),
                                     ("2026-11-26T12:00:01.000Z", "setting.name-" + "k" * {extra}, "2\\x1b\\t")])
"""
PRINT_PROSE = """
from relay.cli.tables import print_table
print_table(("member", "value", "meaning"), [("jti", "j" * {extra}, "2026-11-26 12:00:00 UTC: " + "word " * 20)],
            prose="meaning")
"""


def printed(columns: int, *, extra: int, program: str = PRINT) -> str:
    """Return the text that a terminal of so many columns shows."""
    return re.sub(r"\x1b\[[\d;]*m", "", sent(columns, extra=extra, program=program))


def sent(columns: int, *, extra: int, program: str = PRINT) -> str:
    """Return what is sent to a terminal of so many columns, with its styles."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", program.format(extra=extra)], env=environment, stdout=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65_536):
                shown += data
        except OSError:  # how Linux says that the other end of a terminal was closed
            pass
        os.close(ours)
        assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("extra", [10, 60, 300])
def test_a_terminal_breaks_no_cell(columns: int, extra: int) -> None:
    """A table that is too wide becomes a block of lines for each record."""
    shown = printed(columns, extra=extra)
    for cell in ("2026-11-26T12:00:01.000Z", "j" * 22, "setting.name-" + "k" * extra):
        assert cell in shown
    is_table = any("jti" in line and "count" in line for line in shown.splitlines())
    assert is_table == (extra == 10 or (extra, columns) == (60, 120))


@pytest.mark.parametrize(("extra", "is_table"), [(22, True), (40, True), (60, False)])
def test_only_sentences_are_wrapped(extra: int, is_table: bool) -> None:
    """Beside a value, a sentence has lines of its own in its column, at words; a value is never broken."""
    shown = printed(80, extra=extra, program=PRINT_PROSE)
    assert "j" * extra in shown
    assert "2026-11-26 12:00:00 UTC:" in shown
    assert all(len(line) <= 80 for line in shown.splitlines()) == is_table
    assert ("meaning  2026" in shown) != is_table


def test_a_block_has_dim_names_and_bright_values() -> None:
    """The values are what somebody reads."""
    assert f"\x1b[2m  jti  \x1b[0m{'j' * 22}\r\n" in sent(80, extra=300)


def test_a_pipe_gets_one_record_a_line() -> None:
    """With tabs between the cells, the names first, and no character that a terminal obeys."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT.format(extra=300)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "at\tjti\tcount",
        f"2026-11-26T12:00:00.000Z\t{'j' * 22}\t1",
        f"2026-11-26T12:00:01.000Z\tsetting.name-{'k' * 300}\t2\ufffd\ufffd",
    ]
