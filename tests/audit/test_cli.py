"""`relay audit verify` as its user sees it: one line, an exit code, and never a traceback."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.audit.chain import unseal
from relay.cli.audit import app
from relay.cli.audit.verify import Exit
from tests.support.audit_logs import Lines, write_log


@pytest.fixture
def lines(path: Path) -> Lines:
    """A log of five records."""
    return write_log(path, 5)


def run(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_verifying_an_undamaged_log_exits_with_0(path: Path, lines: Lines) -> None:
    """One line says up to where it is whole and that the end is unproven; exit code 0."""
    result = run(path)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: whole up to record 5, end unproven")
    assert result.stdout.count("\n") == 1


def test_a_whole_log_with_its_head(path: Path, lines: Lines) -> None:
    """With the head the end is proven; one that lies further on shows that the log was cut."""
    head = unseal(lines[-1]).link
    result = run(path, "--head", head)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{path}: whole up to record 5, and that is its end, as the given head proves\n",
    )
    path.write_bytes(b"".join(lines[:-1]))
    result = run(path, "--head", head)
    assert result.exit_code == 16
    assert "cut off" in result.stdout


def test_verifying_a_damaged_log_names_the_first_bad_line(path: Path, lines: Lines) -> None:
    """The first bad line is named; exit code 1."""
    lines[2] = lines[2].replace(b"user-2", b"user-9")
    path.write_bytes(b"".join(lines))
    result = run(path)
    assert (result.exit_code, result.stdout) == (
        10,
        f"{path}: damaged at line 3: this record was modified, its hash does not fit what it says now.\n",
    )


def test_the_verdict_as_json_is_one_object(path: Path, lines: Lines) -> None:
    """A program gets the verdict as one object."""
    link = unseal(lines[-1]).link
    result = run(path, "--json")
    assert json.loads(result.stdout) == {
        "file": str(path),
        "ok": True,
        "records": 5,
        "last": {"writer": link.writer, "seq": 5, "hash": link.hash},
        "proven": 0,
        "lost": 0,
        "torn": 0,
        "unclean": 0,
        "began": 1,
        "oldest": 1,
        "signed": None,
        "closed": False,
        "problem": None,
        "head_from": "",
    }
    path.write_bytes(b"".join(lines[1:]))
    result = run(path, "--json")
    assert result.exit_code == Exit.DELETED
    assert json.loads(result.stdout)["problem"] == {
        "kind": "deleted",
        "line": 1,
        "sentence": "record 1 is missing before this one (record 2).",
        "file": 0,
    }


@pytest.mark.parametrize(
    "name", ["missing.jsonl", ".", "a/b", "new\nline\x1b[31m.jsonl", "\udcff.jsonl", "x" * 300]
)
def test_what_can_not_be_read(tmp_path: Path, name: str) -> None:
    """One line on standard error names the file, printable whatever it is called; exit code 2."""
    result = run(tmp_path / name)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "can't be read" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.rstrip("\n").isprintable()


def test_missing_keys_are_those_of_the_audit_log(path: Path, lines: Lines, tmp_path: Path) -> None:
    """Which setting names them; a new key would prove nothing."""
    (tmp_path / "keys").mkdir()
    for folder, what in (("keys", "has no key. "), ("absent", "there is no folder ")):
        result = CliRunner().invoke(app, ["verify", "--file", str(path), "--keys", str(tmp_path / folder)])
        assert result.exit_code == 2
        assert what in result.stderr
        assert "audit.keys_dir" in result.stderr
        assert "keys new" not in result.stderr


@pytest.mark.parametrize("head", ["x", "w:0:" + "0" * 64, "w:1:" + "0" * 63, ":::", "\x1b[31m"])
def test_a_malformed_head_is_a_usage_error(path: Path, lines: Lines, head: str) -> None:
    """A head that is none is refused with its form; exit code 2."""
    result = run(path, "--head", head)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "WRITER:SEQ:HASH" in result.stderr


@pytest.mark.parametrize(
    "content", [b"\x00" * 100_000, b"[" * 100_000, b"\x1b[31m\n" * 10, os.urandom(10_000), b"{}\n"]
)
def test_verifying_any_file_prints_none_of_its_content(path: Path, content: bytes) -> None:
    """Any file gets its line, with nothing of its content in it."""
    path.write_bytes(content)
    result = run(path)
    assert result.exit_code in {Exit.MALFORMED, Exit.TORN_END}
    assert result.stdout.startswith(f"{path}: damaged at line 1: ")
    assert result.stdout.rstrip("\n").isprintable()


def test_an_empty_log_is_undamaged_and_proves_nothing(path: Path) -> None:
    """A log without a record is not damaged, and says that it proves nothing."""
    path.touch()
    result = run(path)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{path}: empty: there is no record in it, so nothing is proven\n",
    )


def test_colour_is_for_terminals_only(path: Path, lines: Lines) -> None:
    """A terminal sees colour, a pipe sees plain text."""
    command = [sys.executable, "-c", "from relay.cli.audit import app; app()", "verify", str(path)]
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(
            command, stdout=theirs, stderr=theirs, env=environment, check=True, cwd=Path(__file__).parents[2]
        )
        shown = os.read(terminal.fileno(), 65536)
        os.close(theirs)
    assert b"\x1b[32mwhole up to record 5" in shown
    piped = subprocess.run(
        command, capture_output=True, env=environment, check=True, cwd=Path(__file__).parents[2]
    )
    assert piped.stderr == b""
    assert b"\x1b" not in piped.stdout
