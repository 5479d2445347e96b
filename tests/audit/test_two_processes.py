"""The check of a long log in two processes: the verdict is always that of one."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.audit.checkpoints import EVERY
from relay.audit.two_processes import OtherProcess, find_boundaries, start_method
from relay.audit.verdict import Verdict
from relay.audit.writer import LogOptions
from relay.cli.audit import app, verify
from relay.keys.files import create_signing_key
from relay.server.options import AuditKey
from tests.support.audit_logs import write_log
from tests.support.audit_signing import write

RECORDS = 4 * EVERY


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the key that signs the log, and beside it the log."""
    folder = tmp_path_factory.mktemp("log") / "keys"
    key = create_signing_key(folder)
    asyncio.run(write(folder.parent / "audit.jsonl", RECORDS, LogOptions(signer=AuditKey(key.kid, key.key))))
    return folder


@pytest.fixture
def lines(keys: Path) -> list[bytes]:
    """The lines of the log."""
    return (keys.parent / "audit.jsonl").read_bytes().splitlines(keepends=True)


def in_files(folder: Path, lines: list[bytes]) -> list[Path]:
    """Write lines as three files of a log, of which the second has the middle."""
    ends = (0, RECORDS // 8, RECORDS * 7 // 8, len(lines))
    paths = [folder / f"audit-{begin + 1:012d}.jsonl" for begin in ends[:2]] + [folder / "audit.jsonl"]
    for path, begin, end in zip(paths, ends, ends[1:], strict=False):
        path.write_bytes(b"".join(lines[begin:end]))
    return paths


cut = partial(find_boundaries, from_bytes=0, part_bytes=1)
"""Cuts a log of any size, at each checkpoint."""


def modified(line: bytes) -> bytes:
    """Return a record that says something else."""
    return line.replace(b'"node-1"', b'"node-2"')


@pytest.mark.parametrize("ours", [0, 1])
@pytest.mark.parametrize(
    ("damaged", "damage", "exit_code"),
    [
        (lambda _middle: 0, bytes, 0),
        (lambda middle: middle - 700, modified, 10),
        (lambda middle: middle - 1, lambda _line: b"", 11),
        (lambda middle: middle, modified, 10),
        (lambda middle: middle, lambda line: line + line, 13),
        (lambda middle: middle + 1, lambda _line: b"", 11),
        (lambda middle: middle + 1, lambda line: b"{" + line, 14),
        (lambda middle: middle + 700, modified, 10),
        (lambda _middle: -1, lambda line: line[:-1], 15),
    ],
)
def test_the_verdict_is_that_of_one_process(
    keys: Path,
    lines: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damaged: Callable[[int], int],
    damage: Callable[[bytes], bytes],
    exit_code: int,
    ours: int,
) -> None:
    """A log of three files is damaged at and around a checkpoint between two parts, which this process takes or not."""
    files = in_files(tmp_path, lines)
    boundaries = cut(files)
    assert [boundary.file for boundary in boundaries] == [1, 1, 1, 2, 2]
    at = damaged(lines.index(boundaries[1].line))
    lines[at] = damage(lines[at])
    command = ["verify", *map(str, in_files(tmp_path, lines)), "--keys", str(keys), "--json"]
    alone = CliRunner().invoke(app, command)
    assert alone.exit_code == exit_code
    asked: list[Verdict | None] = []
    take, verdict = OtherProcess.take, OtherProcess.verdict
    left = iter(range(ours))

    def asking(self: OtherProcess) -> Verdict | None:
        asked.append(verdict(self))
        return asked[-1]

    monkeypatch.setattr(verify, "find_boundaries", cut)
    monkeypatch.setattr(OtherProcess, "take", lambda self: next(left, None) is not None and take(self))
    monkeypatch.setattr(OtherProcess, "verdict", asking)
    both = CliRunner().invoke(app, command)
    assert (both.exit_code, both.stdout) == (alone.exit_code, alone.stdout)
    if exit_code == 0:
        assert [one is not None and one.ok for one in asked] == [True], "the other process was not asked"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_processes_take_each_part_once(
    keys: Path, lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """However fast each of them is and however the other one starts, the records of both are all."""
    files = in_files(tmp_path, lines)
    monkeypatch.setattr("relay.audit.two_processes.start_method", lambda: method)
    monkeypatch.setattr(verify, "find_boundaries", cut)
    done = CliRunner().invoke(app, ["verify", *map(str, files), "--keys", str(keys), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["records"]) == (0, len(lines))


def test_a_process_that_dies_is_replaced(
    keys: Path, lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the log is then checked here."""
    files = in_files(tmp_path, lines)
    monkeypatch.setattr(verify, "find_boundaries", cut)
    monkeypatch.setattr(OtherProcess, "take", lambda _self: False)
    monkeypatch.setattr("relay.audit.two_processes._check", print)  # it sends no verdict, and ends
    done = CliRunner().invoke(app, ["verify", *map(str, files), "--keys", str(keys)])
    assert (done.exit_code, "signed up to" in done.stdout) == (0, True), done.output


def test_a_process_with_threads_does_not_fork() -> None:
    """Their locks would stay locked in the other process."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    assert start_method() == "spawn"
    ended.set()
    thread.join()
    alone = [sys.executable, "-c", "from relay.audit.two_processes import *; print(start_method())"]
    assert subprocess.run(alone, capture_output=True, check=True, text=True).stdout == "fork\n"


def test_a_log_without_a_checkpoint_in_its_middle_is_checked_by_one_process(
    lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is a short one, and any log where the machine has one core for it. A damaged checkpoint is passed over."""
    files = in_files(tmp_path, lines)
    boundaries = cut(files)
    assert find_boundaries(files) == []
    at = lines.index(boundaries[0].line)
    lines[at] = modified(lines[at])
    assert cut(in_files(tmp_path, lines)) == boundaries[1:]
    unsigned = tmp_path / "unsigned.jsonl"
    write_log(unsigned, 100)
    assert cut([unsigned]) == []
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0})
    assert cut(files) == []
