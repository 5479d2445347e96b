"""The newest records of a log, from its end: filtered, bounded, and with what is torn or damaged left out."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.audit import recent
from relay.audit.chain import Link, seal
from relay.audit.recent import RecentQuery, find_recent

USERS = ["alice", "bob", 'q"\\uote', "Zoë"]


def written(path: Path, count: int) -> list[dict[str, Any]]:
    """Write a log of so many records about users in turn; return them, newest first."""
    head, lines, all_ = Link.before_first("w"), [], []
    for number in range(count):
        record = {
            "@timestamp": "2026-11-26T00:00:00.000Z",
            "event": {
                "action": "token.issued" if number % 3 else "token.denied",
                "outcome": "success" if number % 3 else "failure",
            },
            "user": {"id": USERS[number % len(USERS)]},
            "relay": {"token": {"jti": f"jti-{number}"}, "origin": "alice"},
        }
        line, head = seal(record, head)
        lines.append(line + b"\n")
        all_.append(record)
    path.write_bytes(b"".join(lines))
    return all_[::-1]


def numbers(path: Path, **wanted: Any) -> list[int]:
    """Return the chain's numbers of the records that are found."""
    found = find_recent([[path]], RecentQuery(**{"limit": 1000, **wanted}))
    return [record["relay"]["chain"]["seq"] for record in found.records]


@pytest.mark.parametrize("block", [1, 100, 4096])
def test_the_newest_come_first_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Lines that lie across blocks are whole; `after` and `before` are exclusive."""
    monkeypatch.setattr(recent, "_BLOCK", block)
    path = tmp_path / "audit.jsonl"
    written(path, 12)
    assert numbers(path) == list(range(12, 0, -1))
    assert numbers(path, limit=3) == [12, 11, 10]
    assert numbers(path, before=5) == [4, 3, 2, 1]
    assert numbers(path, after=9) == [12, 11, 10]
    assert numbers(path, after=12) == []


def test_filters_look_at_fields_and_not_at_text(tmp_path: Path) -> None:
    """An origin that is called like a user is none; names are found however the log has to escape them."""
    path = tmp_path / "audit.jsonl"
    all_ = written(path, 12)
    for user in USERS:
        found = find_recent([[path]], RecentQuery(limit=100, about=user)).records
        assert [one["relay"]["token"]["jti"] for one in found] == [
            one["relay"]["token"]["jti"] for one in all_ if one["user"]["id"] == user
        ]
    assert numbers(path, about="jti-3") == [4]
    assert numbers(path, action="token.denied") == numbers(path, outcome="failure") == [10, 7, 4, 1]
    assert numbers(path, action="token.denied", about="alice") == [1]


def test_whether_there_may_be_more_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after a full page, and not where the search ended before the file did."""
    path = tmp_path / "audit.jsonl"
    written(path, 12)
    assert find_recent([[path]], RecentQuery(limit=100)).whole
    assert not find_recent([[path]], RecentQuery(limit=5)).whole
    monkeypatch.setattr(recent, "MAX_BYTES", 1500)
    few = find_recent([[path]], RecentQuery(limit=100))
    assert 0 < len(few.records) < 12
    assert not few.whole


def test_older_files_are_read_on_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that was rotated is one log, and one bound holds for all of its files."""
    path = tmp_path / "audit.jsonl"
    written(path, 12)
    lines = path.read_bytes().splitlines(keepends=True)
    files = [tmp_path / name for name in ("old", "older", "now")]
    for file, part in zip(files, (lines[:4], lines[4:5], lines[5:]), strict=True):
        file.write_bytes(b"".join(part))
    found = find_recent([files], RecentQuery(limit=1000))
    assert [one["relay"]["chain"]["seq"] for one in found.records] == list(range(12, 0, -1))
    assert found.whole
    monkeypatch.setattr(recent, "MAX_BYTES", len(b"".join(lines[3:])))
    found = find_recent([files], RecentQuery(limit=1000))
    assert [one["relay"]["chain"]["seq"] for one in found.records] == list(range(12, 4, -1))
    assert not found.whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"{}", b"[1]", b'{"relay":{"chain":{"seq":"x"}}}']))
)
def test_what_is_no_record_is_left_out(tmp_path: Path, lines: list[bytes]) -> None:
    """A torn or damaged line hides no other; naming it is `relay audit verify`'s work."""
    path = tmp_path / "audit.jsonl"
    written(path, 2)
    path.write_bytes(b"\n".join([*lines, path.read_bytes(), *lines]))
    assert numbers(path) == [2, 1]


def test_the_newest_of_several_chains_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    """A walk over pages of any size shows each record once, and `after` finds what was written since."""
    chains = []
    for number in range(3):
        path = tmp_path / f"audit.{number + 1}.jsonl"
        lines, head = [], Link.before_first(f"writer-{number}")
        for count in range(7):
            at = f"2026-01-01T00:00:{count * 3 + number:02d}.000Z"
            record = {"@timestamp": at, "event": {"action": "logout"}, "relay": {}}
            line, head = seal(record, head)
            lines.append(line + b"\n")
        path.write_bytes(b"".join(lines))
        chains.append([path])
    all_ = find_recent(chains, RecentQuery(limit=100))
    times = [record["@timestamp"] for record in all_.records]
    assert times == sorted(times, reverse=True)
    assert (len(times), all_.whole) == (21, True)
    walked, before = [], None
    while True:
        page = find_recent(chains, RecentQuery(limit=4, before=before))
        walked += [record["@timestamp"] for record in page.records]
        if page.whole:
            break
        before = page.positions[-1]
    assert walked == times
    since = find_recent(chains, RecentQuery(limit=100, after=all_.positions[5]))
    assert [record["@timestamp"] for record in since.records] == times[:5]
