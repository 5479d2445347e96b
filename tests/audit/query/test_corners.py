"""What a plain day does not have: killed relays, services, floods, gaps, changes of files in the middle of a look."""

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay.audit.chain import Link, seal
from relay.audit.index import privileges, questions
from relay.audit.index.database import Index
from relay.audit.query import connected, timeline
from relay.audit.query.explain import explain
from relay.audit.query.holders import holders
from relay.audit.query.records import Record, RecordReader, iso
from relay.audit.recent import recent_timeline
from relay.cli.audit import app
from relay.cli.audit.tail import _grow
from relay.core.errors import Reason
from relay.core.events import Action, Event, to_record
from tests.support.audit_days import BEGIN


def log_lines(*events: tuple[str, Event]) -> list[bytes]:
    """Return a log with these events, each at its time of day."""
    head, found = Link(writer="w" * 32, seq=0, hash="0" * 64), []
    for at, event in events:
        line, head = seal(to_record(event, timestamp=f"2026-11-26T{at}.000Z", event_id="e", node="n"), head)
        found.append(line)
    return found


def written(*events: tuple[str, Event]) -> list[Record]:
    """Return the records of a log with these events, each at its time of day."""
    return list(RecordReader().records(log_lines(*events)))


def indexed(folder: Path, *events: tuple[str, Event]) -> Index:
    """Return the index of a log with these events, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    path = folder / "audit.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in log_lines(*events)))
    return Index(folder / "audit-index", [path], memory_mb=128)


def connection(action: Action, name: str, **relay: Any) -> Event:
    """Return an event of a connection to prices, with a token of the same name."""
    own = {"token": {"jti": name}, "connection": {"id": name}}
    return Event(action=action, user="u", endpoint="prices", relay=own | relay)


def test_who_knows_that_a_relay_was_killed() -> None:
    """The connections of a killed relay ended with it, although no record says so."""
    log = written(
        ("08:00:00", connection(Action.CONNECT_ACCEPTED, "killed")),
        ("08:01:00", connection(Action.CONNECT_ACCEPTED, "closed")),
        ("08:02:00", connection(Action.CONNECTION_CLOSED, "closed")),
        ("09:00:00", Event(action=Action.AUDIT_GAP, relay={"unclean_end": True})),
        ("09:01:00", connection(Action.CONNECT_ACCEPTED, "new")),
    )

    def open_at(hour: float) -> dict[str, tuple[str, bool]]:
        found = connected.connected_at(log, "prices", at=BEGIN + timedelta(hours=hour))
        return {row.connection: (row.until, row.killed) for row in found}

    assert open_at(8.02) == {
        "killed": ("2026-11-26T09:00:00.000Z", True),
        "closed": ("2026-11-26T08:02:00.000Z", False),
    }
    assert open_at(9.01) == {}
    assert open_at(10) == {"new": ("", False)}


def test_a_report_names_each_channel_once() -> None:
    """A channel has a row for each epoch, and is one channel."""
    rows = [
        {"channel": name, "epoch": epoch, "count": 1} for name, epoch in (("a", "e"), ("b", "e"), ("a", "f"))
    ]
    (record,) = written(("08:00:00", Event(action=Action.CONNECTION_CHANNELS, relay={"sent": rows})))
    assert explain(record) == "The connection was sent 3 messages on a, b."


def test_who_names_connections_whose_subscriptions_were_only_counted() -> None:
    """They may have had the channel, if their tokens allow it and they were open while it was counted."""
    scope = {"token": {"jti": "j", "channels": ["prices.>"]}}
    log = written(
        ("08:00:00", connection(Action.CONNECT_ACCEPTED, "named", channels=["prices.A"], count=1)),
        ("08:00:10", connection(Action.CONNECT_ACCEPTED, "ended", **scope)),
        ("08:00:20", connection(Action.CONNECT_ACCEPTED, "flooded", **scope)),
        ("08:00:30", connection(Action.CONNECT_ACCEPTED, "other")),
        ("08:00:40", connection(Action.CONNECTION_CLOSED, "ended")),
        (
            "08:02:00",
            Event(action=Action.SUBSCRIPTIONS_AGGREGATED, relay={"since": "2026-11-26T08:01:00+00:00"}),
        ),
        ("08:03:00", connection(Action.CONNECT_ACCEPTED, "later", **scope)),
    )

    def with_channel(minutes: float, *, since: datetime | None = None) -> list[tuple[str, bool]]:
        at = BEGIN + timedelta(hours=8, minutes=minutes)
        found = connected.connected_at(log, "prices", at=at, since=since, channel="prices.A")
        return [(row.connection, row.only_counted) for row in found]

    assert with_channel(0.9) == [("named", False)]
    assert with_channel(1.5) == [("named", True), ("flooded", True)]
    assert with_channel(4, since=BEGIN) == [("named", True), ("flooded", True)]


def test_holders_of_a_past_moment_have_the_end_that_came_later(tmp_path: Path) -> None:
    """The log knows it: a connection that was closed since then is not shown as open."""
    issued = Event(
        action=Action.TOKEN_ISSUED,
        user="u",
        endpoint="prices",
        relay={"token": {"jti": "t", "exp": 2_000_000_000}},
    )
    with indexed(
        tmp_path,
        ("08:00:00", connection(Action.CONNECT_ACCEPTED, "closed")),
        ("08:00:01", issued),
        ("08:00:02", connection(Action.CONNECT_ACCEPTED, "open")),
        ("08:02:00", connection(Action.CONNECT_ACCEPTED, "later")),
        ("08:03:00", connection(Action.CONNECTION_CLOSED, "closed")),
        ("08:04:00", connection(Action.CONNECT_ACCEPTED, "t")),
    ) as index:
        at = BEGIN + timedelta(hours=8, minutes=1)
        lines = questions.lines_of_holders(index, begin=iso(at), end=iso(at), expires=at.timestamp())
        found = {row.jti: row.until[11:19] for row in holders(RecordReader().records(lines), at=at)}
    assert found == {"closed": "08:03:00", "t": "08:04:00", "open": ""}


def forged(**claimed: str) -> Event:
    """Return the refusal of a token that claims to be somebody's."""
    return Event(action=Action.CONNECT_DENIED, reason=Reason.TOKEN_SIGNATURE, relay={"claimed": claimed})


def test_a_claim_is_told_as_one_and_leads_nowhere(tmp_path: Path) -> None:
    """It is shown with the user or token that it names; it hides none of their records, and adds no others."""
    events = (
        ("08:00:00", connection(Action.CONNECT_ACCEPTED, "real")),
        ("08:01:00", forged(user="u", jti="real", kid="k")),
        ("08:02:00", forged(user="other", jti="u")),
        ("08:03:00", connection(Action.CONNECT_ACCEPTED, "other")),
    )
    log = log_lines(*events)

    def told(about: str) -> list[str]:
        return [
            step.action + (" claimed" if "which nothing proves" in step.sentence else "")
            for step in timeline.timeline_of(lambda _names: log, about, reader=RecordReader())
        ]

    assert told("real") == ["connect.accepted", "connect.denied claimed"]
    assert told("u") == [
        "connect.accepted",
        "connect.denied claimed",
        "connect.denied claimed",
        "connect.accepted",
    ]
    assert told("other") == ["connect.denied claimed", "connect.accepted"]
    with indexed(tmp_path, *events) as index:
        assert not questions.marked(index)
        assert not questions.stats(index).users.total()


def test_claims_do_not_fill_a_timeline(tmp_path: Path) -> None:
    """Anybody can write a thousand tokens that name a user: what the user did stays in the operators' timeline."""
    log = log_lines(
        ("08:00:00", connection(Action.CONNECT_ACCEPTED, "real")),
        *(("08:01:00", forged(user="u", jti=str(number))) for number in range(1000)),
    )
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in log))
    found = recent_timeline([[file]], "u", limit=500)
    assert (found.steps[0].action, len(found.steps)) == ("connect.accepted", 51)
    assert not found.whole, "some were left out"


def test_a_service_is_a_grant_too(tmp_path: Path) -> None:
    """A token without channels: who would lose the service is named, who keeps it is not."""
    issued = Event(
        action=Action.TOKEN_ISSUED,
        user="u",
        endpoint="reports",
        relay={"token": {"jti": "t", "channels": []}, "session": {"ref": "r", "roles": ["trader", "staff"]}},
    )
    with indexed(tmp_path, ("08:00:00", issued)) as log:
        assert [(grant.whose, grant.scope) for grant in privileges.grant_uses(log)] == [
            ("staff", privileges.SERVICE),
            ("trader", privileges.SERVICE),
        ]
        assert privileges.lost_grants(log, {"staff": {"reports": []}}) == []
        (loss,) = privileges.lost_grants(log, {"staff": {"prices": ["prices.>"]}})
    assert (loss.scope, loss.tokens, loss.connections) == (privileges.SERVICE, 1, 0)


def test_stats_count_what_a_flood_only_counted(tmp_path: Path) -> None:
    """Records that stand for many count as many: of floods, and of batches of publications."""
    log = indexed(
        tmp_path,
        ("08:00:00", Event(action=Action.CONNECT_DENIED, reason=Reason.TOKEN_MALFORMED)),
        (
            "08:01:00",
            Event(
                action=Action.DENIALS_AGGREGATED,
                relay={"denied": {"connect.denied": {"token_malformed": 47_600}}},
            ),
        ),
        (
            "08:02:00",
            Event(action=Action.PUBLISH_DENIED, reason=Reason.CHANNEL_FORBIDDEN, relay={"count": 12}),
        ),
    )
    with log:
        found = questions.stats(log)
        by_day = questions.refusals_by_day(log)
    assert {len(day) for day, *_ in by_day} == {len("2026-11-26")}
    assert [tuple(row) for _, *row in by_day] == [
        ("connect.denied", "token_malformed", 47_601),
        ("publish.denied", "channel_forbidden", 12),
    ]
    assert found.refusals["connect.denied", "token_malformed"] == 47_601
    assert found.refusals["publish.denied", "channel_forbidden"] == 12


def test_of_several_roles_those_count_that_grant(tmp_path: Path) -> None:
    """Without the granting roles in the record, every role of the session counts."""
    token = {"jti": "j1", "channels": ["prices.A", "prices.B"]}
    own = {"token": token, "session": {"roles": ["guest", "trader"]}}
    granted = [{"channel": "prices.A", "roles": ["trader"]}]
    for told, expected in (
        (granted, {("trader", "prices.A"), ("guest", "prices.B"), ("trader", "prices.B")}),
        ([], {(role, scope) for role in ("guest", "trader") for scope in ("prices.A", "prices.B")}),
    ):
        log = indexed(
            tmp_path / ("told" if told else "untold"),
            ("08:00:00", Event(action=Action.TOKEN_ISSUED, endpoint="prices", relay=own | {"granted": told})),
            (
                "08:00:01",
                Event(
                    action=Action.CONNECT_ACCEPTED,
                    endpoint="prices",
                    relay={"token": {"jti": "j1"}, "channels": ["prices.A", "prices.B"], "count": 2},
                ),
            ),
        )
        with log:
            found = privileges.grant_uses(log)
        assert {(grant.whose, grant.scope) for grant in found} == expected
        assert {grant.connections for grant in found} == {1}


def test_every_answer_says_what_the_log_lacks(tmp_path: Path) -> None:
    """Events that could not be recorded, and lines that are none: on standard error, once, whatever was asked."""
    path = tmp_path / "audit.jsonl"
    gap = {
        "@timestamp": "2026-11-26T08:00:00.000Z",
        "event": {"action": "audit.gap"},
        "relay": {"lost": {"a": 9}},
    }
    path.write_text(json.dumps(gap, separators=(",", ":")) + "\ntorn {\n")
    for question in (
        ["why", "somebody"],
        ["who", "prices"],
        ["scopes"],
        ["anomalies"],
        ["stats"],
        ["export"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "relay", "audit", *question, "--file", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == (2 if len(question) > 1 else 0)  # the names are unknown
        assert "9 events of this time could not be recorded" in result.stderr
        assert "1 line passed over, because no record is there" in result.stderr
        assert ("Known up to record 1 of 2026-11-26T08:00:00.000Z" in result.stderr) is (
            result.returncode == 0
        )


@pytest.mark.parametrize(
    ("files", "absent"), [((0, 1, 2), 0), ((1, 2), 0), ((0, 1), 0), ((0, 2), 4), ((0, 1, 1, 2), 0)]
)
def test_a_file_that_is_missing_in_the_middle_is_told(
    tmp_path: Path, files: tuple[int, ...], absent: int
) -> None:
    """Older files may be archived, and a file may be given twice. A hole between two files is neither."""
    lines = log_lines(
        *[("08:00:00", connection(Action.CONNECT_ACCEPTED, str(number))) for number in range(12)]
    )
    paths = [tmp_path / f"audit-{place}.jsonl" for place in range(len(files))]
    for path, part in zip(paths, files, strict=True):
        path.write_bytes(b"".join(line + b"\n" for line in lines[4 * part : 4 * part + 4]))
    with Index(tmp_path / "audit-index", paths, memory_mb=128) as index:
        assert questions.missing(index).absent == absent
    told = CliRunner().invoke(app, ["stats", *(f"--file={path}" for path in paths)]).stderr
    assert ("In the middle of the log, 4 records are missing" in told) is bool(absent)


def test_lines_that_were_removed_from_the_only_file_are_told(tmp_path: Path) -> None:
    """Its first record need not be that of the log, because older files may be archived."""
    lines = log_lines(
        *[("08:00:00", connection(Action.CONNECT_ACCEPTED, str(number))) for number in range(12)]
    )
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines[2:5] + lines[8:]))
    with Index(tmp_path / "audit-index", [path], memory_mb=128) as index:
        assert questions.missing(index).absent == 3


def test_tail_loses_nothing_when_the_log_goes_on_in_another_file(tmp_path: Path) -> None:
    """What was written between the last look at the old file and the change comes too, and before the new file's."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"1\n")
    lines_ = _grow([path], lambda _known: [], follow=True)
    assert next(lines_) == b"1\n"
    assert next(lines_) is None
    with path.open("ab") as old:
        old.write(b"2\n")
        old.flush()
        assert next(lines_) == b"2\n"
        path.rename(tmp_path / "audit.1.jsonl")
        path.write_bytes(b"5\n")
        old.write(b"3\n4\n")
    assert [next(lines_) for _ in range(3)] == [b"3\n", b"4\n", b"5\n"]


def test_tail_escapes_a_line_that_the_relay_did_not_write(tmp_path: Path) -> None:
    """Also with --json, which prints the relay's own lines as they are."""
    path = tmp_path / "audit.jsonl"
    own = '{"@timestamp":"2026-01-01T00:00:00.000Z","event":{"action":"logout"}}\n'
    path.write_text(own + own.replace("logout", "\u202e\x9b\x7f"), "utf-8")
    command = [sys.executable, "-m", "relay", "audit", "tail", "--no-follow", "--json", "--file", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert told[0] + "\n" == own
    assert told[1].isascii()
    assert "\x7f" not in told[1]
    assert json.loads(told[1])["event"]["action"] == "\u202e\x9b\x7f"
