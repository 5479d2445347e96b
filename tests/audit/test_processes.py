"""The log of several processes of one machine: a chain for each, and one sequence of records for questions."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay.audit.files import chains, delete_ended, process_path
from relay.audit.jsonl import JsonlAuditor
from relay.audit.logfile import LogFile
from relay.audit.merge import merged
from relay.cli.audit import app
from relay.cli.audit.tail import _grow
from relay.core.events import Action, Event
from relay.settings.load import load
from tests.support.audit_logs import an_event
from tests.support.audit_signing import SIGNED
from tests.support.relay_process import make_relay


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_795_319_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def open_shared(path: Path, clock: Clock | None = None, *, keep_s: float = 0) -> JsonlAuditor:
    """Open the log as one of several processes."""
    options = replace(SIGNED, keep_s=keep_s)
    return JsonlAuditor.open(path, node="host", is_shared=True, clock=clock or Clock(), options=options)


def line(second: int, name: str = "", *, fraction: int = 0) -> bytes:
    """Return a record of a second, as canonical as the merge needs it."""
    return b'{"@timestamp":"2026-01-01T00:00:%02d.%03dZ","x":"%b"}\n' % (second, fraction, name.encode())


async def test_each_process_has_a_chain_of_its_own_and_continues_one_that_ended(path: Path) -> None:
    """The lowest free number is taken, so that restarts make no more files than there were processes at a time."""
    first, second = open_shared(path), open_shared(path)
    assert [first.path.name, second.path.name] == ["audit.1.jsonl", "audit.2.jsonl"]
    assert [first.node, second.node] == ["host-1", "host-2"]
    head = first.head
    await first.aclose()
    third = open_shared(path)
    assert third.path == first.path
    assert third.head.writer == head.writer
    await second.aclose()
    await third.aclose()
    assert [[file.name for file in chain] for chain in chains(path)] == [["audit.1.jsonl"], ["audit.2.jsonl"]]


def test_a_file_that_was_replaced_while_it_was_opened_is_not_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer has rotated it between the opening and the lock: the complete file gets no further record."""
    path.write_bytes(b"")
    replaced = path.with_name("old.jsonl")
    lock = fcntl.flock

    def replace_then_lock(file: int, operation: int) -> None:
        if not replaced.exists():
            path.rename(replaced)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", replace_then_lock)
    LogFile.open(path).close()
    assert not replaced.read_bytes()
    assert path.exists()


async def test_the_chain_of_an_ended_process_is_deleted_when_it_is_old(path: Path) -> None:
    """Nobody rotates it any more, so another process does it; the file of a living one stays, however old it is."""
    open_, ended = open_shared(path), open_shared(path)
    await ended.aclose()
    for auditor in (open_, ended):
        os.utime(auditor.path, (1, 1))
    assert delete_ended(path, before=1) == []
    assert delete_ended(path, before=2) == [ended.path]
    assert chains(path) == [[open_.path]]
    await open_.aclose()


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=2, max_size=4))
def test_the_merged_order_is_that_of_a_stable_sort_by_the_latest_time(times: list[list[int]]) -> None:
    """Also with clocks that were set back: a chain keeps its order, and an index can compute the same."""
    logs = [
        [line(at, f"{number}.{place}") for place, at in enumerate(log)] for number, log in enumerate(times)
    ]
    keyed = [
        (max(log[: place + 1]), number, logs[number][place])
        for number, log in enumerate(times)
        for place in range(len(log))
    ]
    keyed.sort(key=lambda one: one[:2])
    assert list(merged(logs)) == [found for _, _, found in keyed]


def test_a_line_without_a_time_stays_in_its_place() -> None:
    """A torn line is counted by the questions, and moves nothing."""
    assert list(merged([[line(1), b"torn\n", line(3)], [line(2)]])) == [line(1), b"torn\n", line(2), line(3)]


def test_the_merge_reads_no_further_than_a_line_ahead() -> None:
    """A log of many GB is read in constant memory."""
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield line(read % 60)

    lines = merged([endless(), endless()])
    for _ in range(100):
        next(lines)
    assert read <= 103


async def test_questions_read_the_chains_of_all_processes(tmp_path: Path) -> None:
    """`stats` counts all, `tail` shows them in the order of their times, and `verify` has a line for each chain."""
    config = str(make_relay(tmp_path).folder / "relay.toml")
    path, clock = load(Path(config)).audit.path, Clock()
    auditors = [open_shared(path, clock), open_shared(path, clock)]
    for number in range(6):
        clock.now += 1
        await auditors[number % 2].record(an_event(number))
    clock.now += 1
    await auditors[0].aclose()

    def ask(*question: str) -> str:
        result = CliRunner().invoke(app, [*question, "--config", config])
        assert result.exit_code == 0, result.output
        return result.stdout

    tail = ask("tail", "--no-follow", "--json", "--action", "connect.denied")
    assert [json.loads(told)["user"]["id"] for told in tail.splitlines()] == [f"user-{n}" for n in range(6)]
    times = [json.loads(told)["@timestamp"] for told in ask("tail", "--no-follow", "--json").splitlines()]
    for stats in (ask("stats", "--json"), ask("stats", "--json", "--since", times[0])):
        assert {"action": "connect.denied", "count": 6}.items() <= json.loads(stats)["actions"][0].items()
        assert (json.loads(stats)["first"], json.loads(stats)["last"]) == (times[0], times[-1])
    result = CliRunner().invoke(app, ["verify", *(str(one.path) for one in auditors)])
    first, second = result.stdout.splitlines()
    assert result.exit_code == 0
    assert first.endswith(", closed in order")
    assert second.endswith(", its process runs")
    auditors[1]._log_writer._file.close()  # as kill -9 does
    result = CliRunner().invoke(app, ["verify", *(str(one.path) for one in auditors)])
    assert result.stdout.splitlines()[1].endswith(", not closed: its process was killed")
    auditors[0].path.write_bytes(auditors[0].path.read_bytes().replace(b"user-2", b"user-9"))
    result = CliRunner().invoke(app, ["verify", *(str(one.path) for one in auditors)])
    assert result.exit_code == 10
    assert "damaged" in result.stdout.splitlines()[0]
    assert "whole" in result.stdout.splitlines()[1]


async def test_connections_of_a_killed_process_do_not_look_open(tmp_path: Path) -> None:
    """Nobody has continued its chain yet, but no process writes it and its end is missing."""
    config = str(make_relay(tmp_path).folder / "relay.toml")
    path, clock = load(Path(config)).audit.path, Clock()
    auditors = [open_shared(path, clock) for _ in range(3)]
    for name, auditor in zip(("alive", "killed", "stopped"), auditors, strict=True):
        own = {"token": {"jti": name, "channels": ["prices.>"]}, "channels": ["prices.A"]}
        relay = own | {"connection": {"id": name}}
        await auditor.record(Event(action=Action.CONNECT_ACCEPTED, user="u", endpoint="prices", relay=relay))
    await auditors[2].record(
        Event(
            action=Action.CONNECTION_CLOSED,
            user="u",
            endpoint="prices",
            relay={"connection": {"id": "stopped"}},
        )
    )
    await auditors[2].aclose()

    def ask(*question: str) -> tuple[list[dict[str, Any]], str]:
        result = CliRunner().invoke(app, [*question, "--json", "--config", config])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), result.stderr

    def open_now(*question: str) -> list[str]:
        return sorted(row["connection"] for row in ask(*question)[0])

    assert open_now("who", "prices") == open_now("holds") == ["alive", "killed"]
    assert "without closing" not in ask("who", "prices")[1]
    auditors[1]._log_writer._file.close()  # as kill -9 does
    assert open_now("who", "prices") == open_now("holds") == ["alive"]
    for _ in range(20):  # whatever the milliseconds between the two looks at the clock
        assert "a relay ended once without closing the log" in ask("who", "prices")[1]
    (then,) = [
        row for row in ask("who", "prices", "--since", "2026-01-01")[0] if row["connection"] == "killed"
    ]
    assert then["killed"]
    told = ask("sent", "u")[1]
    assert "what alive was sent" in told.partition("it is open")[0]
    assert re.search(r"what killed was sent from \S+ on: its relay was killed before", told)
    found = ask("recipients", "prices.A", "--seq", "1")[0]
    assert [row["killed"] for row in found if row["connection"] == "killed"] == [True]
    held = "SELECT connection, killed FROM connections WHERE until IS NULL OR killed ORDER BY connection"
    assert ask("sql", held)[0] == [
        {"connection": "alive", "killed": False},
        {"connection": "killed", "killed": True},
    ]
    until = ["--until", "2026-01-01T00:00:00"]
    assert ask("sql", held, *until)[0] == []
    copies = [f"--file={one.path}" for one in auditors]
    assert len(json.loads(CliRunner().invoke(app, ["holds", "--json", *copies]).stdout)) == 2, (
        "of files that are named nobody knows whether a process on another machine writes them"
    )


def test_tail_follows_a_process_that_starts_later(path: Path) -> None:
    """Its records come in between those of the others."""
    one, other = process_path(path, 1), process_path(path, 2)
    one.write_bytes(line(1))
    lines = _grow(
        [one], lambda known: [path for path in (other,) if path not in known and path.exists()], follow=True
    )
    assert [next(lines), next(lines)] == [line(1), None]
    other.write_bytes(line(2))
    with one.open("ab") as file:
        file.write(line(3))
    assert [next(lines), next(lines)] == [line(2), line(3)]
