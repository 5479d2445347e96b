"""`relay bench` as a process: run to its end, or on a terminal, and found by its temporary folder."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

WITHIN_S = 240
"""Far more than any of these runs takes; a test that hangs should say where."""


def command(*arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "relay", "bench", *arguments]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return variables with which every process of a run can be told from others: its temporary folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
    return kept | {"TMPDIR": str(folder), "COLUMNS": "100"} | variables


def bench(
    folder: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(folder, **(variables or {})),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes of a run that are alive."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TMPDIR") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def measured(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run one benchmark once, successfully; returns its JSON. No process and no file remains."""
    scratch = folder / "scratch"
    scratch.mkdir()
    done = bench(scratch, *arguments, "--runs", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) >= {
        "bench",
        "version",
        "machine",
        "relay",
        "yardstick",
        "ratio",
        "notes",
        "each",
        "runs",
    }
    assert found["relay"].keys() == found["yardstick"].keys()
    assert len(found["each"]) == found["runs"] == 1
    return found


class OnTerminal:
    """A run whose output is a terminal, so that what it is doing can be followed."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command(*arguments), env=environment(folder), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, pattern: str) -> None:
        """Read until what matches `pattern` was shown."""
        while not re.search(pattern, self.shown):
            part = self._read()
            assert part, self.shown
            self.shown += part

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while part := self._read():
            self.shown += part
        return self.process.wait(WITHIN_S)

    def close(self) -> None:
        """Kill what is left of it."""
        os.close(self._ours)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WITHIN_S)

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65_536).decode()
        except OSError:  # what Linux says when the other end of a terminal is closed
            return ""
