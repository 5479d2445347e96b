"""Questions as real commands while a log is written at 2,000 records a second: right up to the last second."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit_writer import event

RECORDS = 200_000
"""More than are written in the time of the test."""


class Writer:
    """A process that writes a log. `written` records are in the file for sure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        command = [sys.executable, "-m", "tests.support.audit_writer", str(path), str(RECORDS)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.written = 0
        self._begun = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._begun.wait(60)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.written = int(line)
                self._begun.set()

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def in_file(self) -> int:
        """Count the lines of the file that are finished, apart from everything that reads it as a log."""
        return self.path.read_bytes().count(b'"user":{"id":"user-')


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    """A writer, until the end of the tests."""
    writer = Writer(tmp_path_factory.mktemp("written") / "audit.jsonl")
    yield writer
    writer.end()


def ask(writer: Writer, *question: str) -> tuple[int, Any, int]:
    """Ask, and return the answer between the records that were there before and those that were there after it."""
    before = writer.written
    done = subprocess.run(
        [sys.executable, "-m", "relay", "audit", *question, "--json", "--file", str(writer.path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    return before, json.loads(done.stdout), writer.in_file()


def test_counts_are_right_up_to_the_last_record(writer: Writer) -> None:
    """Each answer has all that was written when it was asked, nothing twice, and each one has more."""
    counts = []
    for _ in range(3):
        before, found, after = ask(writer, "stats")
        actions = {row["action"]: row["count"] for row in found["actions"]}
        refused, accepted = actions["connect.denied"], actions["connect.accepted"]
        assert before <= refused + accepted <= after
        counts.append(refused + accepted)
        assert refused == -(-counts[-1] // 10), "the records of an answer have no gap"
    assert counts == sorted(set(counts))


def test_the_newest_record_is_known(writer: Writer) -> None:
    """The token of the last record before a question has its story in the answer."""
    before, story, _ = ask(writer, "why", f"user-{writer.written - 1}")
    assert [step["action"] for step in story] == [event(before - 1).action]


def test_who_is_connected_up_to_the_last_record(writer: Writer) -> None:
    """All connections of the log are open."""
    before, found, after = ask(writer, "who", "prices")
    numbers = {int(row["connection"].rpartition("-")[2]) for row in found}
    assert numbers == {number for number in range(max(numbers) + 1) if number % 10}
    assert before - 1 <= max(numbers) + 1 <= after


def test_marks_are_known_up_to_the_last_record(writer: Writer) -> None:
    """Each tenth record is a replay."""
    before, found, after = ask(writer, "anomalies", "--mark", "replay")
    assert -(-before // 10) <= len(found) <= -(-after // 10)
    assert [row["jti"] for row in found] == [f"jti-{number * 10}" for number in range(len(found))]
