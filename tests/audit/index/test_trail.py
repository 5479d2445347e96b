"""Who published, who was sent what, who holds which scope, what was not granted: compared with a day's own count."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay.audit.chain import Link, seal
from relay.cli.audit import app
from relay.core.errors import Reason
from relay.core.events import Action, Client, Event, to_record

BEGIN = datetime(2026, 11, 26, tzinfo=UTC)
CHANNELS = [f"prices.C{number}" for number in range(6)]
MINUTES = 120


def text(second: float) -> str:
    """Return a time of the day as records have it."""
    at = BEGIN + timedelta(seconds=second)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Day:
    """A log, and what happened as plain sets and lists."""

    path: Path
    published: dict[str, list[tuple[float, str, int]]] = field(default_factory=dict)
    """Channel -> second, publisher and number."""
    sent: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    """Connection -> channel -> numbers."""
    held: list[tuple[str, str, float, float]] = field(default_factory=list)
    """How, token, from when, until when."""
    refused: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """User or "", channel and reason."""
    users: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Two hours with publishers, readers that are reported or not at their end, tokens, revocations and refusals."""
    dice = random.Random(11)
    day = Day(tmp_path_factory.mktemp("trail") / "audit.jsonl")
    events: list[tuple[float, Event]] = []
    _publish(day, dice, events)
    for number in range(80):
        _connect(day, dice, events, number)
    for number in range(60):
        _ask(day, dice, events, number)
    head = Link(writer="w" * 32, seq=0, hash="0" * 64)
    with day.path.open("wb") as file:
        for number, (second, event) in enumerate(sorted(events, key=lambda one: one[0])):
            line, head = seal(to_record(event, timestamp=text(second), event_id=str(number), node="n"), head)
            file.write(line + b"\n")
    return day


def _publish(day: Day, dice: random.Random, events: list[tuple[float, Event]]) -> None:
    seqs: Counter[str] = Counter()
    for minute in range(MINUTES):
        rows: dict[str, dict[str, list[int]]] = {}
        for channel in CHANNELS:
            for publisher in ("market", "desk")[: 1 + (dice.random() < 0.2)]:
                for _ in range(dice.randrange(4)):
                    seqs[channel] += 1
                    second = minute * 60 + 30.0
                    day.published.setdefault(channel, []).append((second, publisher, seqs[channel]))
                    rows.setdefault(publisher, {}).setdefault(channel, []).append(seqs[channel])
        for publisher, channels in rows.items():
            relay: dict[str, Any] = {"publisher": {"id": publisher}, "since": text(minute * 60)}
            relay["publications"] = [
                {"channel": name, "epoch": "e1", "first": of[0], "last": of[-1], "count": len(of)}
                for name, of in channels.items()
            ]
            events.append((minute * 60 + 60, Event(action=Action.PUBLISH_SUMMARY, relay=relay)))


def _connect(day: Day, dice: random.Random, events: list[tuple[float, Event]], number: int) -> None:
    """A connection that gets the messages of some channels, or some of them, and ends or not."""
    begin, length = dice.uniform(0, 3000), dice.uniform(300, 4000)
    connection, jti, user = f"c{number}", f"j{number}", f"user-{number % 9}"
    ident: dict[str, Any] = {"user": user, "endpoint": "prices", "client": Client(address="10.0.0.1")}
    relay: dict[str, Any] = {
        "token": {"jti": jti, "channels": ["prices.>"]},
        "session": {"ref": f"ref-{user}"},
    }
    channels = dice.sample(CHANNELS, 3)
    named = [*channels[:2], "prices.>"] if dice.random() < 0.2 else channels
    day.users[connection] = user
    token = {**relay["token"], "exp": (BEGIN + timedelta(seconds=begin + 30)).timestamp()}
    events.append((begin, Event(action=Action.TOKEN_ISSUED, relay={**relay, "token": token}, **ident)))
    day.held.append(("token", jti, begin, begin + 5))
    relay |= {"connection": {"id": connection}}
    opened = {**relay, "channels": named, "count": 3}
    events.append((begin + 5, Event(action=Action.CONNECT_ACCEPTED, relay=opened, **ident)))
    is_slow, ends = dice.random() < 0.3, dice.random() < 0.8
    end = begin + 5 + length
    day.held.append(("connection", jti, begin + 5, end if ends else float("inf")))
    sent = day.sent[connection] = {name: set() for name in channels}
    reports, since = 0, begin + 5
    for at in (*range(int(begin) + 605, int(end), 600), end):
        rows = []
        for name in channels:
            got = [
                seq
                for second, _, seq in day.published[name]
                if since <= second < at and (not is_slow or dice.random() < 0.6)
            ]
            sent[name] |= set(got)
            if got:
                complete = len(got) == got[-1] - got[0] + 1
                rows.append(
                    {"channel": name, "epoch": "e1", "first": got[0], "last": got[-1], "count": len(got)}
                    | {"complete": complete}
                )
        report = {**relay, "since": text(since), "sent": rows}
        since = at
        if at < end and rows:
            reports += 1
            events.append((at, Event(action=Action.CONNECTION_CHANNELS, relay=report, **ident)))
        elif at == end and ends:
            report["reports"] = reports
            events.append((at, Event(action=Action.CONNECTION_CLOSED, relay=report, **ident)))


def _ask(day: Day, dice: random.Random, events: list[tuple[float, Event]], number: int) -> None:
    """A request that is refused, in part or as a whole, a token that is never used, or one that is revoked."""
    at, user, jti = dice.uniform(0, 7000), f"user-{number % 9}", f"unused{number}"
    ident: dict[str, Any] = {"user": user, "endpoint": "prices"}
    match number % 4:
        case 0:
            relay = {"channels": ["orders.A", "orders.B"], "count": 5}
            events.append(
                (
                    at,
                    Event(
                        action=Action.SUBSCRIBE_DENIED, reason=Reason.CHANNEL_FORBIDDEN, relay=relay, **ident
                    ),
                )
            )
            for channel, count in (("orders.A", 1), ("orders.B", 1), ("", 3)):
                day.refused[user, channel, "channel_forbidden"] += count
        case 1:
            relay = {"asked": {"channels": ["orders.A"] if number % 8 == 1 else []}}
            events.append(
                (at, Event(action=Action.TOKEN_DENIED, reason=Reason.NOTHING_GRANTED, relay=relay, **ident))
            )
            day.refused[user, "orders.A" if number % 8 == 1 else "", "nothing_granted"] += 1
        case _:
            rejected = [{"channel": "orders.B", "reason": "channel_forbidden"}] if number % 4 == 2 else []
            exp = (BEGIN + timedelta(seconds=at + 30)).timestamp()
            token = {"jti": jti, "channels": ["prices.C1"], "exp": exp}
            relay = {"token": token, "rejected": rejected, "session": {"ref": f"ref-{jti}"}}
            events.append((at, Event(action=Action.TOKEN_ISSUED, relay=relay, **ident)))
            until = at + 30.0
            if number % 4 == 3:
                until = at + 10
                gone = {"revoked": "session", "session": {"ref": f"ref-{jti}"}}
                events.append((until, Event(action=Action.SESSION_REVOKED, relay=gone, user=user)))
            else:
                day.refused[user, "orders.B", "channel_forbidden"] += 1
            day.held.append(("token", jti, at, until))


def asked(day: Day, *words: str) -> list[dict[str, Any]]:
    """Return the rows of an answer."""
    result = CliRunner().invoke(app, [*words, "--json", "--file", str(day.path)])
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def test_who_published_on_a_channel(day: Day) -> None:
    """By publisher, with the number of messages and the first and last number, in the minutes of the span."""
    for channel in CHANNELS:
        for span, low, high in (((), 0, MINUTES), (("--since", text(1830), "--until", text(3630)), 30, 60)):
            found = {
                one["publisher"]: (one["count"], one["first"], one["last"])
                for one in asked(day, "publications", channel, *span)
            }
            expected: dict[str, list[int]] = {}
            for second, publisher, seq in day.published[channel]:
                if low * 60 <= second <= high * 60 + 59:
                    expected.setdefault(publisher, []).append(seq)
            assert found == {name: (len(of), of[0], of[-1]) for name, of in expected.items()}


def test_what_a_session_was_sent(day: Day) -> None:
    """Every message that was sent is in a row, and the rows count no other."""
    for user in set(day.users.values()):
        for one in asked(day, "sent", f"ref-{user}"):
            seqs = day.sent[one["connection"]][one["channel"]]
            ended = len(seqs) == one["count"]
            assert one["count"] <= len(seqs)
            assert not ended or (one["first"], one["last"]) == (min(seqs), max(seqs))
            assert not one["complete"] or set(range(one["first"], one["last"] + 1)) <= seqs


def test_who_was_sent_a_message(day: Day) -> None:
    """`was sent` is never said of a message that was not sent, and `was not sent` never of one that was."""
    told: Counter[str] = Counter()
    for channel in CHANNELS[:3]:
        for _, _, seq in random.Random(3).sample(day.published[channel], 5):
            found = {
                one["connection"]: one["verdict"]
                for one in asked(day, "recipients", channel, "--seq", str(seq))
            }
            assert found.keys() >= {name for name, sent in day.sent.items() if channel in sent}
            for connection, verdict in found.items():
                was_sent = seq in day.sent[connection].get(channel, set())
                assert was_sent or verdict != "was sent"
                assert not was_sent or verdict != "was not sent"
                told[verdict] += 1
    assert min(told[verdict] for verdict in ("was sent", "may have been sent", "was not sent")) > 50


def test_of_a_span_those_connections_are_asked_for_that_were_open(day: Day) -> None:
    """The others have no row, and the verdicts are the same."""
    _, _, seq = day.published["prices.C0"][50]
    every = asked(day, "recipients", "prices.C0", "--seq", str(seq))
    span = ("--since", text(1200), "--until", text(1800))
    assert asked(day, "recipients", "prices.C0", "--seq", str(seq), *span) == [
        one for one in every if one["since"] <= text(1800) and (not one["until"] or one["until"] > text(1200))
    ]


def test_who_was_sent_the_messages_of_a_minute(day: Day) -> None:
    """`was sent` means all of them."""
    minute = next(second for second, _, seq in day.published["prices.C0"] if second > 2000) - 30
    of = {seq for second, _, seq in day.published["prices.C0"] if minute <= second < minute + 60}
    found = asked(day, "recipients", "prices.C0", "--at", text(minute + 20))
    assert {one["verdict"] for one in found} >= {"was sent", "was not sent"}
    assert len({one["connection"] for one in found}) == len(found), "one row, also with two publishers"
    for one in found:
        sent = day.sent[one["connection"]].get("prices.C0", set())
        assert one["verdict"] != "was sent" or of <= sent
        assert one["verdict"] != "was not sent" or not of & sent


def test_who_holds_which_scope(day: Day) -> None:
    """Open connections and tokens that can still be used, at any moment."""
    for second in (500.0, 1500.0, 2500.0, 4000.0, 6000.0):
        found = {(one["how"], one["jti"]) for one in asked(day, "holds", "--at", text(second))}
        assert found == {(how, jti) for how, jti, begin, end in day.held if begin <= second < end}
    for first, last in ((500.0, 501.0), (1500.0, 2500.0), (0.0, 9000.0)):
        span = ("--since", text(first), "--until", text(last))
        ends: dict[tuple[str, str], str] = {}
        for one in asked(day, "holds", *span):
            ends[one["how"], one["jti"]] = one["until"]
        assert ends.keys() == {
            (how, jti) for how, jti, begin, end in day.held if begin <= last and end > first
        }
        for how, jti, _, end in day.held:
            if how == "connection" and (how, jti) in ends:
                assert ends[how, jti] == (text(end) if end < float("inf") else "")
    narrow = asked(day, "holds", "--at", text(2500), "--channel", "orders.>")
    assert narrow == []


def test_what_was_asked_and_not_granted(day: Day) -> None:
    """By user, channel and reason."""
    found: Counter[tuple[str, str, str]] = Counter()
    for one in asked(day, "refused"):
        found[one["user"], one["channel"], one["reason"]] += one["count"]
    assert found == day.refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("publications", "prices..A"), "is no channel and no pattern"),
        (("recipients", "prices.>", "--seq", "1"), "Give one without wildcards"),
        (("recipients", "prices.A"), "Give --seq, the message's number, or --at"),
        (
            ("recipients", "prices.C0", "--at", "2026-11-27T12:00"),
            "does not say that something was published",
        ),
    ],
)
def test_a_wrong_question_is_explained(day: Day, words: tuple[str, ...], said: str) -> None:
    """With what is wrong, and what to give instead."""
    result = CliRunner().invoke(app, [*words, "--file", str(day.path)])
    assert result.exit_code != 0
    assert said in f"{result.output} {result.exception}"


def test_tables_for_people(day: Day) -> None:
    """Each answer is a table too, and an empty one is a sentence."""
    for words in (
        ("publications", "prices.>"),
        ("sent", "ref-user-1"),
        ("recipients", "prices.C0", "--seq", "5"),
        ("holds", "--at", text(2000)),
        ("refused",),
    ):
        result = CliRunner().invoke(app, [*words, "--file", str(day.path)])
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 2
    result = CliRunner().invoke(app, ["sent", "nobody", "--file", str(day.path)])
    assert "know a user, session, token or connection 'nobody'" in str(result.exception)
