"""Checkpoints, several files, and the marks of a process that died: how a log is kept over days and restarts."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from relay.audit import jsonl
from relay.audit.chain import Link, unseal
from relay.audit.checkpoints import EVERY
from relay.audit.files import log_files, old_files, old_name
from relay.audit.jsonl import JsonlAuditor
from relay.audit.logfile import LogFile
from relay.audit.verdict import Kind
from relay.audit.writer import LogOptions, Sync
from tests.support.audit_logs import (
    an_event,
    full_disk,
    intact_lines,
    log_bytes,
    records,
    rewritten,
    with_new_hashes,
)
from tests.support.audit_signing import SIGNED, SIGNER, a_key, all_verified, verified, write
from tests.support.raw_websocket import until

SMALL = replace(SIGNED, rotate_bytes=20_000)


def moments(path: Path) -> list[str]:
    """Return the checkpoints of one file."""
    return [
        record["relay"]["checkpoint"]["moment"]
        for record in map(json.loads, intact_lines(path))
        if record["event"]["action"] == "audit.checkpoint"
    ]


def put(path: Path, lines: list[bytes]) -> None:
    """Rewrite a file."""
    path.write_bytes(b"".join(lines))


def move(path: Path, to: Path) -> None:
    """Give a file another name."""
    path.rename(to)


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return path.stat().st_mode & 0o777


def gap_records(path: Path, *, torn: bool = False) -> list[dict[str, Any]]:
    """Return what the gap records of one file say. `torn`: the file has lines that are no records."""
    found = map(json.loads, intact_lines(path)) if torn else records(path)
    return [r["relay"] for r in found if r["event"]["action"] == "audit.gap"]


@pytest.fixture(scope="module")
def signed_log(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a log with checkpoints in between, as three runs of a relay make it."""
    path = tmp_path_factory.mktemp("signed") / "audit.jsonl"
    for _ in range(3):
        asyncio.run(write(path, 6))
    return path.read_bytes().splitlines(keepends=True)


async def test_checkpoints_sign_the_beginning_the_way_and_the_end(path: Path) -> None:
    """One at the start, one within each thousand records, one at the end; and the key's owner can check them."""
    await write(path, 2 * EVERY)
    assert moments(path) == ["opened", "interval", "interval", "closed"]
    verdict = all_verified(path)
    assert (verdict.ok, verdict.signed, verdict.unclean) == (True, verdict.records, 0)
    assert f"signed up to record {verdict.records}" in str(verdict)


async def test_a_checkpoint_comes_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single record is signed without another one, and the place is given away to be kept elsewhere."""
    monkeypatch.setattr("relay.audit.jsonl.CHECKPOINT_WITHIN_S", 0)
    kept: asyncio.Queue[Link] = asyncio.Queue()
    auditor = JsonlAuditor.open(path, node="node-1", options=SIGNED, keep_head=kept.put)
    await auditor.record(an_event())
    while (await kept.get()).seq < 3:
        pass
    assert moments(path)[:2] == ["opened", "interval"]
    await auditor.aclose()
    assert (await kept.get()) == auditor.head
    assert all_verified(path, auditor.head).proven == 4


@given(start=st.integers(0, 20))
def test_a_log_that_was_with_new_hashes_is_seen_by_its_signatures(
    tmp_path_factory: pytest.TempPathFactory, signed_log: list[bytes], start: int
) -> None:
    """Without any head: the next checkpoint after what was changed does not fit any more."""
    path = tmp_path_factory.mktemp("rewritten") / "audit.jsonl"
    path.write_bytes(b"".join(rewritten(signed_log, start)))
    problem = all_verified(path).problem
    assert problem is not None
    assert problem.kind is Kind.BAD_CHECKPOINT
    assert problem.line >= start + 1


def without_checkpoints(lines: list[bytes]) -> list[bytes]:
    """Remove the checkpoints and compute all hashes again, as a forger without the key would."""
    kept = [json.loads(line) for line in lines if b"audit.checkpoint" not in line]
    result: list[bytes] = []
    for number, record in enumerate(kept, 1):
        chain = record["relay"]["chain"]
        record["event"]["sequence"] = chain["seq"] = number
        chain["prev"] = json.loads(result[-1])["relay"]["chain"]["hash"] if result else "0" * 64
        result.append(with_new_hashes(record))
    return result


async def test_a_log_without_its_checkpoints_is_no_log(path: Path) -> None:
    """Leaving them out does not help who has no key: a thousand records must not stand without one."""
    await write(path, EVERY + 5)
    put(path, without_checkpoints(log_bytes(path)))
    problem = all_verified(path).problem
    assert problem is not None
    assert (problem.kind, problem.line) == (Kind.BAD_CHECKPOINT, EVERY + 1)


async def test_another_key_signs_nothing_here(path: Path) -> None:
    """A checkpoint of a key that is not among those given is named."""
    await write(path, 3, LogOptions(signer=a_key()))
    problem = all_verified(path).problem
    assert problem is not None
    assert (problem.kind, problem.line) == (Kind.BAD_CHECKPOINT, 1)
    assert "not among those given" in problem.sentence


# several files


async def test_the_chain_goes_on_from_file_to_file(path: Path) -> None:
    """Each file is named by its first record, begins with a checkpoint, and all are one chain; also over restarts."""
    await write(path, 60, SMALL, batch=10)
    await write(path, 60, SMALL, batch=10)
    files = log_files(path)
    assert len(files) > 3
    for file in files[1:]:
        assert moments(file)[0] == "rotated"
    assert [unseal(file.read_bytes().split(b"\n")[0]).link.seq for file in files[:-1]] == [
        first for first, _ in old_files(path)
    ]
    verdict = all_verified(path)
    assert (verdict.ok, verdict.unclean, verdict.began) == (True, 0, 1)
    assert sum(r["event"]["action"] == "connect.denied" for file in files for r in records(file)) == 2 * 66


async def test_damage_in_any_file_is_found(path: Path) -> None:
    """A file that is missing in the middle, one that lost its first or last line: named with file and line."""
    await write(path, 100, SMALL, batch=10)
    files = log_files(path)
    missing = verified([*files[:1], *files[2:]]).problem
    assert missing is not None
    assert (missing.kind, missing.file, missing.line) == (Kind.DELETED, 1, 1)
    lines = files[1].read_bytes().splitlines(keepends=True)
    for cut, line in ((lines[1:], 1), (lines[:-1], 1)):
        files[1].write_bytes(b"".join(cut))
        problem = verified(files).problem
        assert problem is not None
        assert (problem.kind, problem.file, problem.line) == (Kind.DELETED, 1 + (cut[0] == lines[0]), line)
    files[1].write_bytes(b"".join(lines)[:-1])
    torn = verified(files).problem
    assert torn is not None
    assert (torn.kind, torn.file) == (Kind.TORN_END, 1)


async def test_a_later_file_may_stand_alone_but_not_without_its_beginning(path: Path) -> None:
    """Old files are deleted after a time; what a file begins with says that it may, and can't be cut away."""
    await write(path, 100, SMALL, batch=10)
    later = log_files(path)[1:]
    verdict = verified(later)
    assert verdict.ok
    assert verdict.began == old_files(path)[1][0]
    assert f"whole from record {verdict.began}" in str(verdict)
    later[0].write_bytes(b"".join(later[0].read_bytes().splitlines(keepends=True)[1:]))
    problem = verified(later).problem
    assert problem is not None
    assert (problem.kind, problem.file, problem.line) == (Kind.DELETED, 0, 1)


async def test_files_are_kept_so_long(path: Path) -> None:
    """Older files go as a whole, the oldest first; the log then says from where on it is kept."""
    await write(path, 100, SMALL, batch=10)
    first = old_files(path)[0][1]
    os.utime(first, (0, 0))
    await write_for_two_hours(path)
    assert not first.exists()
    verdict = all_verified(path)
    assert (verdict.ok, verdict.began, verdict.oldest) == (True, old_files(path)[0][0], old_files(path)[0][0])


async def test_a_wrong_clock_deletes_no_file(path: Path) -> None:
    """A clock that is a year ahead at the start, at a rotation or for some minutes is no reason to delete records."""
    await write(path, 100, SMALL, batch=10)
    before = old_files(path)
    await write_for_two_hours(path, ahead_s={0: 4e7, 20: 4e7, 21: 4e7, 61: 4e7})
    assert old_files(path)[: len(before)] == before
    assert all_verified(path).ok


async def write_for_two_hours(path: Path, ahead_s: Mapping[int, float] | None = None) -> None:
    """Write an event each minute, of a log that is kept for a day. `ahead_s`: how wrong the clock is in a minute."""
    minute = 0
    auditor = JsonlAuditor.open(
        path,
        node="node-1",
        options=replace(SMALL, keep_s=86_400),
        clock=lambda: time.time() + 60 * minute + (ahead_s or {}).get(minute, 0),
        steady=lambda: 60.0 * minute,
    )
    for minute in range(120):  # noqa: B007  # the clocks read it
        await auditor.record(an_event())
    await auditor.aclose()


async def test_a_file_is_followed_by_another_after_a_time(path: Path) -> None:
    """The age counts from the file's first record, also over a restart."""
    now = [1_795_319_000.0]
    daily = replace(SIGNED, rotate_s=86_400)
    for _ in range(3):
        auditor = JsonlAuditor.open(path, node="node-1", options=daily, clock=lambda: now[0])
        await auditor.record(an_event())
        await auditor.aclose()
        now[0] += 50_000
    assert len(log_files(path)) == 2
    assert all_verified(path).ok


async def test_a_crash_while_the_files_change_loses_nothing(path: Path) -> None:
    """Between the two steps the file has both names, and the next one lies ready: the next start tidies up."""
    await write(path, 5)
    os.link(path, old_name(path, 1))
    path.with_name(".audit.jsonl.next").write_bytes(b"half a rec")
    assert log_files(path) == [path]
    await write(path, 5)
    assert (old_files(path), len(list(path.parent.iterdir()))) == ([], 1)
    assert all_verified(path).ok


async def test_a_log_whose_newest_file_was_moved_away_goes_on(path: Path) -> None:
    """An empty place beside older files continues their chain instead of beginning another."""
    await write(path, 5)
    head = unseal(log_bytes(path)[-1]).link
    move(path, old_name(path, 1))
    log = LogFile.open(path)
    assert log.head == head
    log.close()


@pytest.mark.parametrize("create", [False, True])
async def test_a_renamed_log_continues_in_a_new_file(path: Path, *, create: bool) -> None:
    """As logrotate does it, with `create` or without: the next record is in a new file, of the same chain."""
    auditor = JsonlAuditor.open(path, node="node-1", options=SIGNED)
    await auditor.record(an_event(1))
    move(path, path.with_name("audit.jsonl.1"))
    if create:
        put(path, [])
    with capture_logs() as logs:
        await auditor.record(an_event(2))
        await auditor.record(an_event(3))
    (line,) = [line for line in logs if "renamed" in line["event"]]
    assert (line["log_level"], line["old"]) == ("warning", "audit-000000000001.jsonl")
    await auditor.aclose()
    assert moments(path) == ["rotated", "closed"]
    assert mode(path) == 0o600
    assert path.with_name(line["old"]).samefile(path.with_name("audit.jsonl.1"))
    assert all_verified(path).ok
    assert verified([path.with_name("audit.jsonl.1"), path]).ok
    await write(path, 2)
    assert all_verified(path).ok


async def test_a_log_that_is_renamed_before_the_end_is_found_again(path: Path) -> None:
    """No event comes after the renaming: the last checkpoint starts the new file, and the next start continues."""
    auditor = JsonlAuditor.open(path, node="node-1", options=SIGNED)
    await auditor.record(an_event(1))
    move(path, path.with_name("audit.jsonl.1"))
    await auditor.aclose()
    await write(path, 2)
    assert all_verified(path).ok
    assert len(log_files(path)) == 2


@pytest.mark.parametrize("keep", ["nothing", "whole lines", "a torn line", "part of the first line"])
@pytest.mark.parametrize("quiet", [False, True])
async def test_a_log_that_was_cut_off_goes_on_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, *, quiet: bool
) -> None:
    """As with logrotate's copytruncate, with and without a further event: an error, a signed gap record, one chain."""
    monkeypatch.setattr(jsonl, "CHECK_FILE_S", 0.01)
    copy = path.with_name("audit.jsonl.1")
    auditor = JsonlAuditor.open(path, node="node-1", options=SIGNED)
    for number in range(5):
        await auditor.record(an_event(number))
    lines = log_bytes(path)
    put(copy, lines)
    whole = b"".join(lines)
    kept = {
        "nothing": 0,
        "whole lines": len(b"".join(lines[:3])),
        "a torn line": len(b"".join(lines[:3])) + 100,
        "part of the first line": 100,
    }[keep]
    with capture_logs() as logs:
        os.truncate(path, kept)
        if not quiet:
            await auditor.record(an_event(6))
        await until(lambda: bool(gap_records(path, torn=True)))
        await auditor.record(an_event(7))
        await auditor.aclose()
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["bytes"], line["last_record"]) == (len(whole) - kept, len(lines))
    (gap,) = gap_records(path, torn=True)
    assert gap["cut"] == len(whole) - kept
    verdict = all_verified(path)
    assert verdict.problem is not None
    assert verdict.problem.kind is Kind.DELETED
    assert "copytruncate" in verdict.problem.sentence
    first = len(lines[:3]) + 1 if kept > 100 else 1
    assert f"records {first} to {len(lines)} are missing" in verdict.problem.sentence
    if not kept:
        assert verified([copy, path]).ok, "nothing was written between the copy and the cut"
    await write(path, 2)
    assert [one for one in gap_records(path, torn=True) if one.get("unclean_end")] == []


async def test_another_file_with_the_logs_name_is_left_alone(path: Path) -> None:
    """The relay writes on into the renamed file, and one line says why."""
    auditor = JsonlAuditor.open(path, node="node-1", options=SIGNED)
    await auditor.record(an_event(1))
    renamed = path.with_name("audit.jsonl.1")
    move(path, renamed)
    put(path, [b"mine\n"])
    with capture_logs() as logs:
        await auditor.record(an_event(2))
        await auditor.record(an_event(3))
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert "another file took the name audit.jsonl" in line["error"]
    await auditor.aclose()
    assert log_bytes(path) == [b"mine\n"]
    assert verified([renamed]).ok
    assert sorted(entry.name for entry in path.parent.iterdir() if "audit" in entry.name) == [
        path.name,
        renamed.name,
    ]


async def test_a_full_disk_keeps_the_old_file(path: Path) -> None:
    """If no new file can be created, the log continues in the old one, whole, and logs why once."""
    await write(path, 5)
    with capture_logs() as logs:
        auditor = JsonlAuditor.open(path, node="node-1", options=replace(SIGNED, rotate_bytes=1))
        path.with_name(".audit.jsonl.next").mkdir()
        await auditor.record(an_event())
        await auditor.record(an_event())
        await auditor.aclose()
    assert [entry["event"] for entry in logs].count(
        "no new audit file can be created; the old one is still used"
    ) <= 1
    assert all_verified(path).ok


# ends


async def test_a_process_that_died_is_marked(path: Path) -> None:
    """The next start says that the log was not closed; one that was is no gap."""
    await write(path, 3)
    await write(path, 3)
    assert gap_records(path) == []
    put(path, log_bytes(path)[:-1])
    await write(path, 1)
    assert [gap.get("unclean_end") for gap in gap_records(path)] == [True]
    verdict = all_verified(path)
    assert (verdict.ok, verdict.unclean, verdict.lost) == (True, 1, 0)
    assert "1 end without closing" in str(verdict)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.integers(0, 5000))
def test_wherever_a_crash_cut_the_log_it_goes_on(
    tmp_path_factory: pytest.TempPathFactory, signed_log: list[bytes], keep: int
) -> None:
    """TornBytes bytes are accounted for before the checkpoint of the new start, and all of it verifies."""
    path = tmp_path_factory.mktemp("torn") / "audit.jsonl"
    path.write_bytes(b"".join(signed_log)[:keep])
    with capture_logs():
        asyncio.run(write(path, 2))
    verdict = all_verified(path)
    assert verdict.ok, verdict
    assert verdict.signed == verdict.records


@pytest.mark.parametrize("sync", Sync)
async def test_a_full_disk_costs_no_checkpoint(path: Path, sync: Sync) -> None:
    """What could not be signed in time is signed with the first record that fits again."""
    auditor = JsonlAuditor.open(path, node="node-1", options=replace(SIGNED, sync=sync), retry_s=0)
    with full_disk(path, room=100):
        for number in range(5):
            auditor.note(an_event(number))
        with pytest.raises(Exception, match="could not be written"):
            await auditor.record(an_event())
    await auditor.record(an_event())
    await auditor.aclose()
    verdict = all_verified(path)
    assert (verdict.ok, verdict.signed, verdict.lost) == (True, verdict.records, 5)


DAMAGES: dict[str, Callable[[list[bytes], int, int], list[bytes]]] = {
    "edit": lambda lines, i, j: [*lines[:i], lines[i].replace(b"203.0", b"203.1", 1), *lines[i + 1 :]],
    "delete": lambda lines, i, j: lines[:i] + lines[i + 1 :],
    "swap": lambda lines, i, j: [
        lines[j] if n == i else lines[i] if n == j else x for n, x in enumerate(lines)
    ],
    "truncate": lambda lines, i, j: lines[:i],
    "rewrite": lambda lines, i, j: rewritten(lines, i),
}


@given(name=st.sampled_from(sorted(DAMAGES)), i=st.integers(0, 23), j=st.integers(0, 23))
def test_any_damage_is_found_against_key_and_head(
    tmp_path_factory: pytest.TempPathFactory, signed_log: list[bytes], name: str, i: int, j: int
) -> None:
    """Whatever is done to whichever record of a real log: with the key and the last head nothing passes."""
    i, j = i % len(signed_log), j % len(signed_log)
    damaged = DAMAGES[name](list(signed_log), i, j)
    path = tmp_path_factory.mktemp("damaged") / "audit.jsonl"
    path.write_bytes(b"".join(damaged))
    verdict = all_verified(path, unseal(signed_log[-1]).link)
    assert verdict.ok == (damaged == signed_log)
    assert verdict.problem is None or verdict.problem.line <= len(signed_log) + 1


def test_the_signer_is_named() -> None:
    """A record tells which key signed it."""
    assert len(SIGNER.kid) == 16
