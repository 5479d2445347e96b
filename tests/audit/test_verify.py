"""Verification: every single change to a real log is found, and the line it names is the first bad one."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit.chain import MAX_LINE, Link, seal, unseal
from relay.audit.verdict import Kind, Verdict
from relay.audit.verify import read_lines, verify
from relay.core.events import Action, Event, to_record
from tests.support.audit_logs import rewritten, with_new_hashes, write_log

COUNT = 12
TORN = b'{"@timestamp":"2026-01-01T00:00:00.000Z","event":{"acti'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a log that a real auditor wrote."""
    return write_log(tmp_path_factory.mktemp("log") / "audit.jsonl", COUNT)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of another log."""
    return write_log(tmp_path_factory.mktemp("other") / "audit.jsonl", COUNT)


def checked(data: bytes, head: Link | None = None) -> Verdict:
    """Verify bytes as the command does."""
    return verify(read_lines(io.BytesIO(data)), head=head)


def found(data: Iterable[bytes], head: Link | None = None) -> tuple[Kind, int]:
    """Return what is wrong and in which line."""
    verdict = checked(b"".join(data), head)
    assert verdict.problem is not None, verdict
    assert not verdict.ok
    return verdict.problem.kind, verdict.problem.line


def head_of(lines: Sequence[bytes]) -> Link:
    """Return the place of the last record."""
    return unseal(lines[-1]).link


def gap_after(lines: Sequence[bytes], torn: bytes, *, claim: bytes | None = None) -> list[bytes]:
    """Return `lines`, then `torn` and the gap record that accounts for it (or for `claim`)."""
    claim = torn if claim is None else claim
    details = {"unreadable": {"bytes": len(claim), "sha256": sha256(claim).hexdigest()}}
    event = Event(action=Action.AUDIT_GAP, relay=details)
    before = head_of(lines) if lines else Link.before_first("writer-1")
    line, _ = seal(to_record(event, timestamp="t", event_id="i", node="n"), before)
    return [*lines, torn, line + b"\n"]


def test_a_log_that_nobody_touched_is_whole(log: list[bytes]) -> None:
    """All records count, and the verdict says that nothing proves the end."""
    verdict = checked(b"".join(log))
    assert (verdict.ok, verdict.records, verdict.last, verdict.proven) == (True, COUNT, head_of(log), 0)
    assert str(verdict).startswith(f"whole up to record {COUNT}, end unproven")


def test_a_head_proves_the_end(log: list[bytes]) -> None:
    """With the last record's place from elsewhere, the whole log is proven."""
    verdict = checked(b"".join(log), head_of(log))
    assert (verdict.ok, verdict.proven) == (True, COUNT)
    assert "unproven" not in str(verdict)


def test_an_older_head_proves_what_was_there_then(log: list[bytes]) -> None:
    """A log goes on after its head was kept; up to there it is proven."""
    verdict = checked(b"".join(log), head_of(log[:5]))
    assert (verdict.ok, verdict.proven, verdict.records) == (True, 5, COUNT)
    assert "proven up to record 5, end unproven" in str(verdict)


def test_an_empty_log_proves_nothing(log: list[bytes]) -> None:
    """No record is no damage, unless a head says that there were some."""
    assert checked(b"").ok
    assert "nothing is proven" in str(checked(b""))
    assert found([], head_of(log)) == (Kind.CUT_OFF, 1)


@given(at=st.integers(0, COUNT - 2))
def test_a_deleted_record_is_missed(log: list[bytes], at: int) -> None:
    """Taking out any line but the last is seen where the next one stands."""
    assert found(log[:at] + log[at + 1 :]) == (Kind.DELETED, at + 1)


@given(st.integers(0, COUNT - 1), st.integers(1, COUNT))
def test_deleted_records_are_counted(log: list[bytes], at: int, count: int) -> None:
    """Several records in a row are missed like one; at the end, only against a head."""
    left = log[:at] + log[at + count :]
    if at + count >= COUNT:
        assert checked(b"".join(left)).ok
        assert found(left, head_of(log)) == (Kind.CUT_OFF, at + 1)
    else:
        assert found(left) == (Kind.DELETED, at + 1)


@given(st.sets(st.integers(0, COUNT - 1), min_size=2, max_size=2).map(sorted))
def test_swapped_records_are_seen(log: list[bytes], places: list[int]) -> None:
    """Two records that changed places are named as that, at the first of the two."""
    first, second = places
    swapped = list(log)
    swapped[first], swapped[second] = log[second], log[first]
    assert found(swapped) == (Kind.REORDERED, first + 1)


@given(what=st.integers(0, COUNT - 1), at=st.integers(0, COUNT))
def test_a_repeated_record_is_seen(log: list[bytes], what: int, at: int) -> None:
    """A copy of a record, anywhere in the log, is the first bad line; before the original, it is that place."""
    kind, line = found([*log[:at], log[what], *log[at:]])
    assert line == at + 1 + (at == what)  # a copy right before the original can't be told from it
    assert kind in {Kind.INSERTED, Kind.REORDERED}


@given(what=st.integers(0, COUNT - 1), at=st.integers(0, COUNT))
def test_a_record_of_another_log_is_seen(log: list[bytes], other: list[bytes], what: int, at: int) -> None:
    """An intact record of another chain fits nowhere; in front, it is this log's own first that is foreign."""
    kind, line = found([*log[:at], other[what], *log[at:]])
    assert line == at + 1 + (at == what == 0)
    assert kind in {Kind.INSERTED, Kind.DELETED}


@given(at=st.integers(0, COUNT), text=st.binary().filter(lambda text: b"\n" not in text))
def test_an_inserted_line_is_seen(log: list[bytes], at: int, text: bytes) -> None:
    """A line of anything, also an empty one, is named."""
    assert found([*log[:at], text + b"\n", *log[at:]]) == (Kind.MALFORMED, at + 1)


@given(st.data())
def test_any_other_byte_is_seen(log: list[bytes], data: st.DataObject) -> None:
    """Whichever byte is changed to whatever: the line it was in is named."""
    at = data.draw(st.integers(0, COUNT - 1))
    line = log[at]
    where = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[where]))
    changed = line[:where] + bytes([byte]) + line[where + 1 :]
    kind, named = found([*log[:at], changed, *log[at + 1 :]])
    assert named == at + 1
    assert kind in {Kind.MODIFIED, Kind.MALFORMED, Kind.TORN_END}


@given(st.data())
def test_any_added_or_missing_byte_is_seen(log: list[bytes], data: st.DataObject) -> None:
    """Whichever bytes are cut out of a line, or put into it: the line is named."""
    at = data.draw(st.integers(0, COUNT - 1))
    line = log[at]
    start = data.draw(st.integers(0, len(line) - 1))
    end = data.draw(st.integers(start, len(line)).filter(lambda end: end - start < len(line)))
    text = data.draw(st.binary(max_size=8).filter(lambda text: text != line[start:end]))
    changed = line[:start] + text + line[end:]
    if changed.startswith(line) or (at == COUNT - 1 and line.startswith(changed)):
        return  # an inserted line or a torn end, which have tests of their own
    _, named = found([*log[:at], changed, *log[at + 1 :]])
    assert named == at + 1


@given(st.integers(0, COUNT - 2))
def test_a_record_with_new_hashes_is_named(log: list[bytes], at: int) -> None:
    """If one record is changed and its hash computed again, the next record shows it."""
    record = json.loads(log[at])
    record["user"] = {"id": "somebody else"}
    assert found([*log[:at], with_new_hashes(record), *log[at + 1 :]]) == (Kind.MODIFIED, at + 1)


@given(st.integers(0, COUNT - 2))
def test_a_forged_record_in_between_is_named(log: list[bytes], at: int) -> None:
    """A record put in with a fitting hash takes the place of the next one, and both claim it."""
    record = json.loads(log[at + 1])
    record["user"] = {"id": "somebody else"}
    assert found([*log[: at + 1], with_new_hashes(record), *log[at + 1 :]]) == (Kind.INSERTED, at + 2)


@given(st.integers(0, COUNT - 1))
def test_a_rewritten_log_is_seen_against_a_head(log: list[bytes], start: int) -> None:
    """A log whose hashes were all computed again looks whole; only a head from another place shows it."""
    forged = rewritten(log, start)
    assert checked(b"".join(forged)).ok
    assert found(forged, head_of(log)) == (Kind.REWRITTEN, COUNT)


def test_another_log_is_seen_against_a_head(log: list[bytes], other: list[bytes]) -> None:
    """A new log does not fit the head of the old one."""
    assert found(other, head_of(log)) == (Kind.REWRITTEN, 1)


@given(st.data())
def test_a_torn_end_is_named_as_that(log: list[bytes], data: st.DataObject) -> None:
    """A log that ends within a line says so, because a crash explains it and a forger need not be looked for."""
    whole = b"".join(log)
    length = data.draw(st.integers(1, len(whole) - 1).filter(lambda length: whole[length - 1] != 0x0A))
    kind, line = found([whole[:length]])
    assert (kind, line) == (Kind.TORN_END, whole[:length].count(b"\n") + 1)


@given(before=st.integers(0, 3), torn=st.binary(min_size=1).map(lambda torn: torn + b"\n"))
def test_a_torn_line_that_is_accounted_for_is_forgiven(log: list[bytes], before: int, torn: bytes) -> None:
    """Bytes between two records that the second one names are no damage, but the verdict tells of them."""
    verdict = checked(b"".join(gap_after(log[:before], torn)))
    assert (verdict.ok, verdict.torn, verdict.records) == (True, 1, before + 1)
    assert "1 torn line after" in str(verdict)


@pytest.mark.parametrize(
    ("change", "kind", "line"),
    [
        (lambda lines: [*lines[:-2], lines[-1]], Kind.DELETED, 4),
        (lambda lines: [*lines[:-2], b"x" + lines[-2], lines[-1]], Kind.MALFORMED, 4),
        (lambda lines: [*lines[:-1], b"more\n", lines[-1]], Kind.MALFORMED, 4),
        (lambda lines: lines[:-1], Kind.MALFORMED, 4),
        (lambda lines: [*lines[:1], lines[-2], *lines[1:-2], lines[-1]], Kind.MALFORMED, 2),
    ],
    ids=["taken out", "changed", "added to", "not accounted for", "moved"],
)
def test_a_torn_line_is_part_of_the_chain(
    log: list[bytes], change: Callable[[list[bytes]], list[bytes]], kind: Kind, line: int
) -> None:
    """Once accounted for, a torn line can be neither changed nor taken away."""
    assert found(change(gap_after(log[:3], TORN + b"\n"))) == (kind, line)


def test_a_gap_record_forgives_no_record_that_was_changed(log: list[bytes]) -> None:
    """A crash leaves no record with a wrong hash, so a restart can't launder one that somebody edited."""
    edited = log[3].replace(b"user-3", b"user-4")
    assert found(gap_after(log[:3], edited)) == (Kind.MODIFIED, 4)


def test_a_gap_record_that_names_other_bytes_forgives_nothing(log: list[bytes]) -> None:
    """The bytes must be the very ones."""
    assert found(gap_after(log[:3], TORN + b"\n", claim=TORN + b" \n")) == (Kind.MALFORMED, 4)


def test_lost_events_are_told(log: list[bytes]) -> None:
    """What gap records count as lost is added up in the verdict."""
    event = Event(action=Action.AUDIT_GAP, relay={"lost": {"connect.denied": 5, "logout": 2}})
    line, _ = seal(to_record(event, timestamp="t", event_id="i", node="n"), head_of(log))
    verdict = checked(b"".join(log) + line + b"\n")
    assert (verdict.ok, verdict.lost) == (True, 7)
    assert "7 events reported as lost" in str(verdict)


def test_a_line_without_end_does_not_fill_the_memory(log: list[bytes]) -> None:
    """Ten lines' worth of zeros come in pieces, are one bad line, and what follows keeps its number."""
    zeros = bytes(10 * MAX_LINE)
    pieces = list(read_lines(io.BytesIO(zeros)))
    assert max(map(len, pieces)) <= MAX_LINE + 1
    assert found([*log[:2], zeros, b"\n", *log[2:]]) == (Kind.MALFORMED, 3)
    accounted = gap_after(log[:2], zeros + b"\n")
    assert checked(b"".join(accounted)).ok
    assert found([*accounted, b"more\n"]) == (Kind.MALFORMED, 5)


def test_the_log_is_not_read_to_its_end(log: list[bytes]) -> None:
    """Verification stops reading where it knows enough, and reads few lines at a time, so a log of any size fits."""
    lines = iter([*log[:3], b"damage\n", *log[4:], *[b"never reached\n"] * 100])
    verdict = verify(lines)
    assert verdict.problem is not None
    assert verdict.problem.line == 4
    assert len(list(lines)) > 50


@given(st.lists(st.binary(), max_size=20))
def test_garbage_never_raises(lines: list[bytes]) -> None:
    """Any bytes get a verdict."""
    verdict = verify(lines)
    assert verdict.ok == (verdict.problem is None)
    assert str(verdict).isprintable()
