"""Questions to a day's log of thousands of tokens, against counts that were kept while it was made."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit.index import privileges, questions
from relay.audit.index.database import Index
from relay.audit.index.manifest import folder_of
from relay.audit.query import connected, timeline
from relay.audit.query.explain import explain
from relay.audit.query.records import Record, RecordReader, from_parsed, iso
from relay.core.errors import EXPLANATIONS, Reason
from tests.support.audit_days import BEGIN, GRANTED, Day, make_day

TOKENS = 10_000
"""Ran with 100,000 too, which takes a minute to write."""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A day in a file."""
    return make_day(tmp_path_factory.mktemp("day") / "audit.jsonl", tokens=TOKENS)


@pytest.fixture(scope="module")
def index(day: Day) -> Iterator[Index]:
    """The index of the day."""
    with Index(folder_of(day.path), [day.path], memory_mb=256) as found:
        yield found


def lines(day: Day) -> Iterator[bytes]:
    """Read the file."""
    with day.path.open("rb") as file:
        yield from file


def records(day: Day) -> Iterator[Record]:
    """Read the file's records."""
    return RecordReader().records(lines(day))


@pytest.mark.parametrize("number", [0, 1, 4711, TOKENS - 1])
def test_why_tells_the_whole_story(day: Day, number: int) -> None:
    """Asked by the token or by the connection: the same, from the request to the close."""
    jti = f"jti-{number}"
    told = timeline.timeline_of(lambda _names: lines(day), jti, reader=RecordReader())
    assert sorted(step.action for step in told) == sorted(day.stories[jti])
    assert [step.at for step in told] == sorted(step.at for step in told)
    if len(told) > 1:
        assert (
            timeline.timeline_of(lambda _names: lines(day), f"connection-{number}", reader=RecordReader())
            == told
        )


def test_why_of_a_user(day: Day) -> None:
    """Everything under that name, and nothing of a longer one."""
    told = timeline.timeline_of(lambda _names: lines(day), "guest-1", reader=RecordReader())
    plain = [json.loads(line) for line in lines(day) if b'"guest-1"' in line]
    assert len(told) == sum(record["user"]["id"] == "guest-1" for record in plain) > 20
    assert {step.user for step in told} == {"guest-1"}


def test_explaining_an_unknown_id_finds_no_records(day: Day) -> None:
    """Nothing is nothing."""
    assert timeline.timeline_of(lambda _names: lines(day), "nobody", reader=RecordReader()) == []


@pytest.mark.parametrize("hour", [0, 6, 12, 23.9])
def test_connected_at_a_time_lists_the_open_connections(day: Day, hour: float) -> None:
    """Exactly those that had begun and not ended."""
    at = BEGIN + timedelta(hours=hour)
    for endpoint in ("prices", "trades", "nowhere"):
        found = connected.connected_at(records(day), endpoint, at=at)
        assert {row.connection for row in found} == day.open_at(endpoint, at)


def test_scopes_say_what_was_used(day: Day, index: Index) -> None:
    """Each grant of a role has the number of its tokens and connections; unused grants come first."""
    found = privileges.grant_uses(index)
    assert {(g.whose, g.endpoint, g.scope): g.tokens for g in found} == dict(day.granted)
    assert {(g.whose, g.endpoint, g.scope): g.connections for g in found if g.connections} == dict(day.used)
    assert not found[0].connections
    by_user = privileges.grant_uses(index, by_user=True)
    assert sum(grant.tokens for grant in by_user) == sum(day.granted.values())


def test_a_candidate_names_who_would_have_lost_what(day: Day, index: Index) -> None:
    """Guests without ETH: each of them, by as many tokens as had it; traders notice nothing."""
    candidate = {
        "trader": {"prices": ["prices.>"], "trades": ["trades.>"]},
        "guest": {"prices": ["prices.BTC-USD"]},
    }
    found = privileges.lost_grants(index, candidate)
    assert {(loss.user, loss.endpoint, loss.scope): loss.tokens for loss in found} == {
        key: count for key, count in day.lost.items() if count
    }
    assert not any(loss.connections for loss in found), "nobody watched it"


def test_a_narrower_grant_is_missed_by_those_who_used_the_rest(day: Day, index: Index) -> None:
    """Traders watched SOL-USD under prices.>: with BTC-USD alone every such connection would have missed it."""
    found = privileges.lost_grants(
        index,
        {"trader": {"prices": ["prices.BTC-USD"], "trades": ["trades.>"]}, "guest": GRANTED["guest"]},
    )
    assert {loss.scope for loss in found} == {"prices.>"}
    assert {
        (loss.user, loss.endpoint, loss.scope): loss.connections for loss in found if loss.connections
    } == {key: count for key, count in day.watched.items() if key[2] == "prices.>"}
    assert set().union(*(loss.missed for loss in found)) == {"prices.SOL-USD"}
    wide = {"trader": {"prices": ["prices.SOL-USD"], "trades": ["trades.>"]}, "guest": GRANTED["guest"]}
    assert not any(loss.connections for loss in privileges.lost_grants(index, wide)), (
        "all that was used is granted"
    )


def test_stats_and_anomalies_count_right(day: Day, index: Index) -> None:
    """Each action, each reason, each mark."""
    found = questions.stats(index)
    assert found.records == sum(day.actions.values())
    assert found.actions == day.actions
    assert found.refusals["connect.denied", "token_replayed"] == day.marked
    assert len(questions.marked(index)) == len(questions.marked(index, marks=["replay"])) == day.marked > 100
    assert not questions.marked(index, marks=["wrong_origin"])


def test_a_span_of_time(day: Day) -> None:
    """Both ends belong to it."""
    noon = BEGIN + timedelta(hours=12)
    inside = list(RecordReader(since=noon, until=noon + timedelta(hours=1)).records(lines(day)))
    plain = [json.loads(line)["@timestamp"] for line in lines(day)]
    assert (
        len(inside)
        == sum("2026-11-26T12:00:00.000Z" <= at <= "2026-11-26T13:00:00.000Z" for at in plain)
        > 500
    )


def test_what_is_no_record_is_counted() -> None:
    """And the rest is read. A record without a time in the form that has the order of times is none."""
    reader = RecordReader()
    good = b'{"@timestamp":"2026-01-01T00:00:00.000Z","event":{"action":"logout"}}\n'
    times = [good.replace(b"01-01T", no) for no in (b"02-30T", b"01-01 ", b"1-1T", b"01-01T0")]
    found = list(reader.records([b"torn {", good, b"\xff\n", b"\n", b"[]\n", *times]))
    assert ([record.event.action for record in found], reader.unreadable) == (["logout"], 7)


@given(
    at=st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z"),
    where=st.integers(0, 24),
    length=st.integers(0, 2),
    other=st.text("0123456789-:.TZ+ \u0664", max_size=2),
)
def test_what_is_a_time_of_a_record(at: str, where: int, length: int, other: str) -> None:
    """One that is the same after it was read and written, and no other text."""
    for text in (at, at[:where] + other + at[where + length :]):
        try:
            is_time = iso(datetime.fromisoformat(text)) == text
        except (ValueError, OverflowError):
            is_time = False
        line = json.dumps({"@timestamp": text, "event": {"action": "logout"}}).encode()
        assert len(list(RecordReader().records([line]))) == is_time


# the commands


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A short day, with a user whose name a terminal or a spreadsheet would obey."""
    day = make_day(tmp_path_factory.mktemp("small") / "audit.jsonl", tokens=200)
    evil = {
        "@timestamp": "2026-11-26T23:59:59.000Z",
        "event": {"action": "token.denied", "outcome": "failure", "reason": "session_invalid"},
        "user": {"id": "=cmd|' /C calc'!A0\x1b[31m\u202e\u2028\n"},
        "client": {"ip": "10.0.0.1"},
        "relay": {},
    }
    with day.path.open("ab") as file:
        file.write(json.dumps(evil).encode() + b"\n")
    return day


def ask(
    day: Day, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command on the day's file."""
    command = [sys.executable, "-m", "relay", "audit", *arguments]
    if "--file" not in arguments:
        command += ["--file", str(day.path)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {})},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        *[
            ("why", "jti-1"),
            ("who", "prices", "--at", "2026-11-26T12:00"),
        ],
        *[("scopes",), ("scopes", "--users", "--unused"), ("anomalies",), ("stats",)],
        *[("tail", "--no-follow"), ("export",)],
    ],
    ids=" ".join,
)
def test_commands_answer_in_plain_text(small: Day, arguments: tuple[str, ...]) -> None:
    """Without colours into a pipe, and with nothing in it that a terminal would obey."""
    result = ask(small, *arguments)
    assert result.returncode == 0
    # tail shows the log itself; the others say what they know
    assert ("Known up to record" in result.stderr) is (arguments[0] != "tail")
    assert len(result.stderr.splitlines()) == (arguments[0] != "tail")
    assert result.stdout.strip()
    assert not {"\x1b", "\u202e", "\u2028"} & set(result.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ("why", "jti-1"),
        ("who", "prices", "--at", "2026-11-26T12:00"),
        ("scopes",),
        ("anomalies",),
        ("stats",),
    ],
    ids=" ".join,
)
def test_json_is_for_scripts(small: Day, arguments: tuple[str, ...]) -> None:
    """One document."""
    assert json.loads(ask(small, *arguments, "--json").stdout)


def test_every_question_takes_a_span_of_time(small: Day) -> None:
    """A token's story, who was connected, what is marked: of one hour, in UTC or in the zone of this machine."""
    hour = ("--since", "2026-11-26T12:00", "--until", "2026-11-26T13:00")
    begun, ended = BEGIN + timedelta(hours=12), BEGIN + timedelta(hours=13)
    rows = json.loads(ask(small, "who", "prices", *hour, "--json").stdout)
    assert {row["connection"] for row in rows} == {
        name
        for name, where, begin, end in small.spans
        if where == "prices" and begin <= ended and (end is None or end > begun)
    }
    watching = json.loads(ask(small, "who", "prices", *hour, "--channel", "prices.SOL-USD", "--json").stdout)
    assert watching
    assert watching == [row for row in rows if "prices.SOL-USD" in row["subscribed"]]
    shown = ask(small, "tail", "--no-follow", "--json", *hour).stdout.splitlines()
    assert {json.loads(line)["@timestamp"][:13] for line in shown} == {"2026-11-26T12"}
    assert ask(small, "who", "prices", "--at", "1h", "--since", "2h").returncode == 2


def test_local_time(small: Day) -> None:
    """Times without a zone are read, and tables are written, in the zone of this machine; JSON stays in UTC."""
    hour = ("--since", "2026-11-26T12:00", "--until", "2026-11-26T13:00")
    there = ("--since", "2026-11-26T17:45", "--until", "2026-11-26T18:45", "--local")
    at_katmandu = {"TZ": "Asia/Kathmandu"}
    for question in (("anomalies",), ("scopes",), ("why", "jti-7")):
        by_utc = ask(small, *question, *hour, "--json").stdout
        assert ask(small, *question, *there, "--json", environment=at_katmandu).stdout == by_utc
    by_day = ask(small, "stats", "--by-day", "--local", environment=at_katmandu).stdout
    days = {row.split("\t")[0] for row in by_day.splitlines()[1:]}
    assert days == {"2026-11-26", "2026-11-27"}, "a day there ends 05:45 earlier"
    shown = ask(small, "tail", "--no-follow", *there, environment=at_katmandu).stdout
    assert "2026-11-26T18:" in shown
    assert "+05:45" in shown


def test_why_of_an_address(small: Day) -> None:
    """Everything from there, in its order, or only the newest steps; in a time without any, an empty answer."""
    plain = [json.loads(line) for line in lines(small)]
    at = next(record["client"]["ip"] for record in plain if record.get("client", {}).get("ip"))
    from_there = [one["relay"]["chain"]["seq"] for one in plain if one.get("client", {}).get("ip") == at]
    steps = json.loads(ask(small, "why", "--address", at, "--json").stdout)
    assert [step["number"] for step in steps] == from_there
    assert json.loads(ask(small, "why", "--address", at, "--newest", "2", "--json").stdout) == steps[-2:]
    assert ask(small, "why", "--address", at, "--until", "2020-01-01", "--json").stdout == "[]\n"
    assert (
        ask(small, "why", "jti-7", "--until", "2020-01-01").stdout
        == "The log has nothing about jti-7 in this time.\n"
    )


def test_marks_are_asked_for_by_name(small: Day) -> None:
    """One mark, several, or a name that is none."""
    rows = json.loads(ask(small, "anomalies", "--mark", "replay", "--json").stdout)
    assert len(rows) == small.marked > 0
    assert ask(small, "anomalies", "--mark", "other_address", "--json").stdout == "[]\n"
    assert "Did you mean replay?" in ask(small, "anomalies", "--mark", "replays").stderr


def test_all_fields_are_columns(small: Day) -> None:
    """Each value of each record is in a cell that is named as in the record."""
    rows = list(csv.DictReader(io.StringIO(ask(small, "export", "--all").stdout)))
    plain = [json.loads(line) for line in lines(small)]
    assert len(rows) == len(plain)
    for row, record in zip(rows, plain, strict=True):
        assert row["timestamp"] == record["@timestamp"]
        assert row["relay.chain.hash"] == record["relay"].get("chain", {}).get("hash", "")
        used = record["relay"].get("connection", {}).get("scopes", {}).get("used")
        assert row["relay.connection.scopes.used"] == ("" if used is None else json.dumps(used))


def test_a_spreadsheet_runs_nothing(small: Day) -> None:
    """A cell that begins like a formula has an apostrophe in front."""
    rows = ask(small, "export").stdout.splitlines()
    assert rows[0].startswith("at,action,outcome,reason,user")
    assert any(",\"'=cmd" in row or ",'=cmd" in row for row in rows)
    assert not any(",=cmd" in row for row in rows)


def test_a_candidate_is_read_from_settings(small: Day, tmp_path: Path) -> None:
    """A file with only [grants] is enough; a file without them is an error."""
    candidate = tmp_path / "candidate.toml"
    candidate.write_text(
        '[grants]\ntrader.prices = ["prices.>"]\ntrader.trades = { channels = ["trades.>"] }\n'
    )
    result = ask(small, "scopes", "--candidate", str(candidate), "--json")
    assert {row["roles"][0] for row in json.loads(result.stdout)} == {"guest"}
    candidate.write_text("[grants]\ntrader.prices = 1\n")
    assert "grants.trader.prices is a list" in ask(small, "scopes", "--candidate", str(candidate)).stderr
    candidate.write_text("[grants]\ntrader = 1\n")
    assert "grants.trader is a table" in ask(small, "scopes", "--candidate", str(candidate)).stderr
    candidate.write_text("")
    assert "has no [grants]" in ask(small, "scopes", "--candidate", str(candidate)).stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("stats", "--since", "yesterday"), "is no time"),
        (("stats", "--since", "999999d"), "is no time"),
        (("stats", "--until", "0001-01-01T00:00+10:00"), "is no time"),
        (("who", "prices", "--at", "25:00"), "is no time"),
        (("who", "price", "--at", "2026-11-26T12:00"), "know an endpoint 'price'. Did you mean prices?"),
        (("who", "price", "--json"), "Did you mean prices?"),
        (("who", "[/x]"), "know an endpoint '[/x]'. There are "),
        (("why", "jti-12345678901"), "know a user, session, token or connection 'jti-12345678901'."),
        (("why", "jti-1x", "--json"), "Did you mean jti-1"),
        (("why", "--address", "10.300.0.1"), "know an address '10.300.0.1'"),
        (
            ("why", "--publisher", "nobody", "--address", "::1"),
            "Give one of JTI|CONNECTION|SESSION|USER, --address",
        ),
        (("tail", "--no-follow", "--user", "nobody at all"), "know a user 'nobody at all'"),
        (("tail", "--no-follow", "--action", "connect.denyed"), "Did you mean connect.denied"),
        (("tail", "--no-follow", "--outcome", "fail"), "Give success or failure"),
        (("stats", "--file", "/nowhere/audit.jsonl"), "there is no such audit log"),
        (("tail", "--no-follow", "--file", "/nowhere/audit.jsonl"), "there is no such audit log"),
    ],
)
def test_mistakes_are_one_line(small: Day, arguments: tuple[str, ...], sentence: str) -> None:
    """What to do is in it, and no traceback."""
    result = ask(small, *arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_tail_follows_the_log_into_its_next_file(tmp_path: Path) -> None:
    """What is written after a rotation comes too."""
    path = tmp_path / "audit.jsonl"
    record = '{{"@timestamp":"2026-01-01T00:00:00.000Z","event":{{"action":"{}"}}}}\n'
    path.write_text(record.format("logout"))
    command = [sys.executable, "-u", "-m", "relay", "audit", "tail", "--json", "--file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert "logout" in process.stdout.readline()
            with path.open("a") as file:
                file.write(record.format("key.rotated"))
            assert "key.rotated" in process.stdout.readline()
            path.rename(tmp_path / "audit-000000000001.jsonl")
            path.write_text(record.format("login.failed"))
            assert "login.failed" in process.stdout.readline()
        finally:
            process.kill()


def test_a_story_in_a_pipe_is_one_line_for_each_step(small: Day) -> None:
    """Long sentences were broken after 80 characters, so that grep found half of them."""
    steps = json.loads(ask(small, "why", "jti-1", "--json").stdout)
    heading, *lines = [line.split("\t") for line in ask(small, "why", "jti-1").stdout.splitlines()]
    assert [dict(zip(heading, line, strict=True))["sentence"] for line in lines] == [
        step["sentence"] for step in steps
    ]


def test_no_unused_grant_is_not_no_token(small: Day, tmp_path: Path) -> None:
    """A log whose grants were all used is not called a log without tokens."""
    token = {"jti": "j", "channels": ["prices.>"]}
    common = {"user": {"id": "u"}, "@timestamp": "2026-11-26T12:00:00.000Z"}
    issued = {"relay": {"endpoint": "prices", "token": token, "session": {"roles": ["trader"]}}}
    subscribed = {"relay": {"endpoint": "prices", "token": token, "channels": ["prices.A"], "count": 1}}
    log = tmp_path / "audit.jsonl"
    log.write_text(
        json.dumps(common | issued | {"event": {"action": "token.issued"}})
        + "\n"
        + json.dumps(common | subscribed | {"event": {"action": "subscribe.accepted"}})
        + "\n"
    )
    done = ask(small, "scopes", "--unused", "--file", str(log))
    assert (
        done.stdout == "Each scope that tokens gave a role was used by somebody. --users tells who did not.\n"
    )
    done = ask(small, "scopes", "--unused", "--users", "--file", str(log))
    assert done.stdout == "Each scope that tokens gave a user was used by that user.\n"


def test_a_story_has_the_detail_of_a_refusal() -> None:
    """The general sentence of a reason does not say which of its cases it was."""
    event = {"action": "token.denied", "reason": "request_malformed"}
    detail = "Send a body of type application/json, or no body."
    found = from_parsed({"@timestamp": "", "event": event, "relay": {"detail": detail}})
    assert found is not None
    assert explain(found).endswith(detail)
    plain = EXPLANATIONS[Reason.REQUEST_MALFORMED]
    again = from_parsed({"@timestamp": "", "event": event, "relay": {"detail": plain}})
    assert again is not None
    assert explain(again).count(plain) == 1
