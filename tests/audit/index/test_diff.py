"""What was had and used in one of two periods, compared with an own count over a log of two chains."""

import csv
import io
import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay.audit.chain import Link, seal
from relay.audit.index.database import Index
from relay.audit.index.differences import differences
from relay.cli.audit import app
from relay.core.errors import Reason
from relay.core.events import Action, Event, to_record

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
DAY = 86_400.0
PERIODS = ("2026-11-02..2026-11-03", "2026-11-03..2026-11-04")
BOUNDS = ((DAY, 2 * DAY), (2 * DAY, 3 * DAY))
NEVER = float("inf")
ROLES = [f"role-{number}" for number in range(40)]


def text(second: float) -> str:
    """Return a time as records have it."""
    at = BEGIN + timedelta(seconds=second)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Fact = tuple[str, str, str, str, str]
"""Whose, what, endpoint, channel and reason."""


@dataclass
class Made:
    """A log, and what happened: for each fact, when it held."""

    files: list[Path]
    role: dict[Fact, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    user: dict[Fact, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    publisher: dict[Fact, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def note(self, roles: set[str], user: str, *fact: str, since: float, until: float) -> None:
        """Note a fact of a user, which belongs to these roles."""
        what, endpoint, channel, reason = fact
        for role in roles:
            self.role[role, what, endpoint, channel, reason].append((since, until))
        self.user[user, what, endpoint, channel, reason].append((since, until))

    def only_in(self, by: str) -> dict[tuple[str, Fact], int]:
        """Return what was in one period alone, and how often."""
        found = {}
        for fact, spans in getattr(self, by).items():
            a, b = (sum(since < end and until >= begin for since, until in spans) for begin, end in BOUNDS)
            if bool(a) != bool(b):
                found["A" if a else "B", fact] = a or b
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Four days of two relays. One of them is killed and starts again on the third day."""
    folder = tmp_path_factory.mktemp("diff")
    made = Made([folder / "audit.1.jsonl", folder / "audit.2.jsonl"])
    dice = random.Random(5)
    for chain, path in enumerate(made.files):
        events: list[tuple[float, Event]] = []
        killed = 2.4 * DAY if chain else NEVER
        for number in range(160):
            _connect(made, dice, events, f"{chain}-{number}", killed)
        for _ in range(40):
            _publish(made, dice, events)
        if chain:
            events.append((killed + 60, Event(action=Action.AUDIT_GAP, relay={"unclean_end": True})))
        head = Link(writer=str(chain) * 32, seq=0, hash="0" * 64)
        with path.open("wb") as file:
            for second, event in sorted(events, key=lambda one: one[0]):
                record = to_record(event, timestamp=text(second), event_id="e", node="n")
                line, head = seal(record, head)
                file.write(line + b"\n")
    return made


def _connect(
    made: Made, dice: random.Random, events: list[tuple[float, Event]], name: str, killed: float
) -> None:
    """A token of one role or two, which is used, extended and left, or not; each role grants a pattern of its own."""
    at = float(dice.randrange(int(3.9 * DAY)))
    roles = dice.sample(ROLES, dice.choice([1, 1, 2]))
    user, endpoint = f"{roles[0]}-user-{dice.randrange(3)}", dice.choice(["prices", "trades"])
    if killed - 300 <= at <= killed + 60:
        return
    jti = f"jti-{name}"
    ident: dict[str, Any] = {"user": user, "endpoint": endpoint}

    def issue(jti: str, at: float, until: float, granting: list[str]) -> None:
        granted = [{"channel": f"{endpoint}.{role}.>", "roles": [role]} for role in granting]
        relay: dict[str, Any] = {
            "token": {"jti": jti, "channels": [one["channel"] for one in granted]},
            "session": {"ref": f"ref-{user}", "roles": granting},
        }
        relay |= {"granted": granted} if len(granting) > 1 else {}
        if dice.random() < 0.1:
            relay["rejected"] = [{"channel": "secret", "reason": "channel_forbidden"}]
            made.note(
                {*granting}, user, "refused", endpoint, "secret", "channel_forbidden", since=at, until=at
            )
        events.append((at, Event(action=Action.TOKEN_ISSUED, relay=relay, **ident)))
        for role in granting:
            made.note({role}, user, "granted", endpoint, f"{endpoint}.{role}.>", "", since=at, until=until)

    own = {"token": {"jti": jti}, "connection": {"id": f"connection-{name}"}}
    kind = dice.random()
    if kind < 0.3:
        issue(jti, at, at, roles)
        _refuse(made, dice, events, at + 1, roles, ident, own)
        return
    end = NEVER if kind > 0.95 else at + 10 + dice.randrange(int(DAY if kind > 0.6 else 3000))
    if at < killed <= end:
        end = killed + 60
    elif end != NEVER:
        closed = Event(action=Action.CONNECTION_CLOSED, reason=Reason.CLIENT_CLOSED, relay=own, **ident)
        events.append((end, closed))
    refreshed = at + 100 if dice.random() < 0.3 and end > at + 200 else end
    issue(jti, at, refreshed, roles)
    watched = [f"{endpoint}.{role}.{dice.choice('AB')}" for role in roles]
    opened = own | {"channels": watched[:1], "count": 1}
    events.append((at + 2, Event(action=Action.CONNECT_ACCEPTED, relay=opened, **ident)))
    made.note({*roles}, user, "opened", endpoint, "", "", since=at + 2, until=end)
    for second, role, channel in zip((2, 5), roles, watched, strict=False):
        made.note({role}, user, "subscribed", endpoint, channel, "", since=at + second, until=end)
        if second == 5:
            later = own | {"channels": [channel], "count": 1}
            events.append((at + 5, Event(action=Action.SUBSCRIBE_ACCEPTED, relay=later, **ident)))
    if refreshed != end:
        issue(f"{jti}-2", refreshed - 1, end, roles[:1])
        again = own | {"token": {"jti": f"{jti}-2"}}
        events.append((refreshed, Event(action=Action.CONNECTION_REFRESHED, relay=again, **ident)))


def _refuse(
    made: Made,
    dice: random.Random,
    events: list[tuple[float, Event]],
    at: float,
    roles: list[str],
    ident: dict[str, Any],
    own: dict[str, Any],
) -> None:
    """Refusals of a connection, of a request, and of a subscription whose record does not name all channels."""
    asked = {"session": {"roles": roles}, "asked": {"channels": ["y"]}}
    several = own | {"channels": ["x"], "count": 3}
    for action, reason, relay, channels in (
        (Action.CONNECT_DENIED, Reason.TOKEN_REPLAYED, own, [""]),
        (Action.SUBSCRIBE_DENIED, Reason.CHANNEL_FORBIDDEN, several, ["x", "", ""]),
        (Action.TOKEN_DENIED, Reason.NOTHING_GRANTED, asked, ["y"]),
    ):
        if dice.random() < 0.3:
            events.append((at, Event(action=action, reason=reason, relay=relay, **ident)))
            for channel in channels:
                fact = ("refused", ident["endpoint"], channel, reason)
                made.note({*roles}, ident["user"], *fact, since=at, until=at)


def _publish(made: Made, dice: random.Random, events: list[tuple[float, Event]]) -> None:
    """A minute of a publisher, and a refusal."""
    minute = dice.randrange(int(3.9 * 1440)) * 60.0 + 30
    publisher, channel = f"publisher-{dice.randrange(9)}", dice.choice(["prices.A", "prices.B"])
    row = {"channel": channel, "epoch": "e", "first": 1, "last": 1, "count": 1}
    relay = {"publisher": {"id": publisher}, "since": text(minute), "publications": [row]}
    events.append((minute + 60, Event(action=Action.PUBLISH_SUMMARY, relay=relay)))
    made.publisher[publisher, "published", "", channel, ""].append((minute, minute + 60))
    if dice.random() < 0.3:
        refused = {"publisher": {"id": publisher}, "count": 4}
        events.append(
            (minute, Event(action=Action.PUBLISH_DENIED, reason=Reason.CHANNEL_FORBIDDEN, relay=refused))
        )
        made.publisher[publisher, "refused", "", "", "channel_forbidden"] += [(minute, minute)] * 4


def asked(made: Made, *words: str) -> Any:
    """Ask for the difference of the periods."""
    files = [word for path in made.files for word in ("--file", str(path))]
    result = CliRunner().invoke(app, ["diff", *words, *files])
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    return result


@pytest.mark.parametrize("by", ["role", "user", "publisher"])
def test_what_is_in_one_period_alone(made: Made, by: str) -> None:
    """Every grant, use and refusal of one period is there with its number, and nothing that is in both or in none."""
    rows = json.loads(asked(made, *PERIODS, "--by", by, "--json").stdout)
    keys = ("whose", "what", "endpoint", "channel", "reason")
    found = {(row["only_in"], tuple(row[key] for key in keys)): row["count"] for row in rows}
    expected = made.only_in(by)
    assert found == expected
    assert len(rows) == len(found)
    assert {only_in for only_in, _ in expected} == {"A", "B"}
    whats = {"published", "refused"} if by == "publisher" else {"granted", "opened", "subscribed", "refused"}
    assert {fact[1] for _, fact in expected} == whats
    mirrored = json.loads(asked(made, *reversed(PERIODS), "--by", by, "--json").stdout)
    swapped = [row | {"only_in": {"A": "B", "B": "A"}[row["only_in"]]} for row in mirrored]
    assert sorted(map(str, swapped)) == sorted(map(str, rows))


def test_the_forms_of_the_answer_agree(made: Made) -> None:
    """JSON, CSV and the lines into a pipe have the same rows; standard error says what the log knows."""
    rows = json.loads(asked(made, *PERIODS, "--json").stdout)
    of_csv = list(csv.DictReader(io.StringIO(asked(made, *PERIODS, "--csv").stdout)))
    assert of_csv == [{name: str(value) for name, value in row.items()} for row in rows]
    piped = asked(made, *PERIODS)
    head, *lines = piped.stdout.splitlines()
    assert head == "whose\tonly in\twhat\tendpoint\tchannel\treason\tcount"
    assert [line.split("\t")[:4] for line in lines] == [
        [row["whose"], row["only_in"], row["what"], row["endpoint"]] for row in rows
    ]
    assert "records of 2 chains" in piped.stderr
    assert "do not name all channels" in piped.stderr


def test_a_period_that_the_log_does_not_have_is_told(made: Made) -> None:
    """Everything is in the other one, and standard error says why."""
    told = asked(made, "2025-01-01..2025-02-01", "2026-10-31..2026-11-02")
    assert "The log has no record of A, from 2025-01-01T00:00:00.000Z to 2025-02-01" in told.stderr
    assert "B begins before the log, whose first record is of 2026-11-01" in told.stderr
    empty = asked(made, "2024-01-01..2024-02-01", "2025-01-01..9999-12-31T23:59:59", "--by", "publisher")
    assert "no record of B" not in empty.stderr
    same = asked(made, "2024-01-01..2024-02-01", "2024-02-01..2024-03-01", "--by", "user")
    assert same.stdout == "The log has no record of this time.\n"
    assert "\tA\t" in asked(made, "..2026-11-02", "2d..").stdout


@pytest.mark.parametrize(
    ("periods", "said"),
    [
        (("2026-11-01", "7d.."), "A: '2026-11-01' is no period. Give FROM..TO"),
        (("7d..3d", ".."), "B: '..' is no period"),
        (("7d..3d", "1d..2d..3d"), "B: '1d..2d..3d' is no period"),
        (("3d..7d", "1d.."), "has to end after it begins"),
        (("3d..3d", "1d.."), "has to end after it begins"),
        (("7d..3d", "soon..1d"), "B: 'soon' is no time"),
        (("7d..2d", "3d.."), "A (7d..2d) and B (3d..) overlap"),
        (("..", "3d.."), "A: '..' is no period"),
    ],
)
def test_a_wrong_period_is_explained(made: Made, periods: tuple[str, str], said: str) -> None:
    """With what is wrong, and what to give instead."""
    result = CliRunner().invoke(app, ["diff", *periods, "--file", str(made.files[0])])
    assert result.exit_code != 0
    assert said in str(result.exception)


def test_periods_ago_that_touch_do_not_overlap(made: Made) -> None:
    """Both are counted from one now, in either order."""
    for periods in (("7d..3d", "3d.."), ("3d..", "7d..3d"), ("2d..0s", "4d..2d")):
        asked(made, *periods)


@pytest.mark.parametrize(("killed", "only_in"), [({}, []), ({"w" * 32: text(100)}, ["A"])])
def test_of_a_killed_relay_nothing_stays_open(
    tmp_path: Path, killed: dict[str, str], only_in: list[str]
) -> None:
    """Though nobody has continued its chain yet: the caller knows that its process is gone."""
    relay = {"token": {"jti": "j", "channels": ["prices.>"]}, "connection": {"id": "c"}}
    event = Event(action=Action.CONNECT_ACCEPTED, user="u", endpoint="prices", relay=relay)
    record = to_record(event, timestamp=text(10), event_id="i", node="n")
    line, _ = seal(record, Link(writer="w" * 32, seq=0, hash="0" * 64))
    path = tmp_path / "audit.1.jsonl"
    path.write_bytes(line + b"\n")
    with Index(tmp_path / "audit-index", [path], memory_mb=128, killed=killed) as index:
        found = differences(index, (text(0), text(200)), (text(200), text(300)), by="user")
    assert [one.only_in for one in found] == only_in
