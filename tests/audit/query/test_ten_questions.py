"""The ten questions of a security team: each is one command, and answers what was counted when the log was made."""

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay.cli.audit import app
from relay.core.errors import Reason
from relay.core.events import Action, Client, Event
from tests.support.audit_days import BEGIN, Day, make_day

if find_spec("duckdb") is None:
    pytest.skip("needs DuckDB", allow_module_level=True)

NOON = BEGIN + timedelta(hours=12)
HELD = "prices.held"
README = Path(__file__).parents[3] / "relay/audit/query/README.md"


def others() -> list[tuple[datetime, Event]]:
    """Return what a day of tokens does not have: publications, refusals, reports, and a token that nobody used."""
    issued = {"jti": "held", "channels": [HELD], "exp": (BEGIN + timedelta(days=2)).timestamp()}
    events = [
        Event(
            action=Action.TOKEN_ISSUED,
            user="holder",
            endpoint="prices",
            relay={"token": issued, "session": {"ref": "ref-holder", "roles": ["holder"]}},
        )
    ]
    for first in (1, 6):
        row = {"channel": "prices.BTC-USD", "epoch": "e", "first": first, "last": first + 4, "count": 5}
        relay = {"publisher": {"id": "market"}, "since": "2026-11-26T11:59:00.000Z", "publications": [row]}
        events.append(Event(action=Action.PUBLISH_SUMMARY, relay=relay, client=Client(address="10.1.0.1")))
        sent = [{"channel": "prices.BTC-USD", "epoch": "e", "first": first, "last": first + 4, "count": 5}]
        connection = {"connection": {"id": "reported"}, "session": {"ref": "ref-reported"}, "sent": sent}
        events.append(Event(action=Action.CONNECTION_CHANNELS, user="reader", relay=connection))
        asked = {"asked": {"channels": ["orders.A"]}}
        events.append(
            Event(action=Action.TOKEN_DENIED, user="asker", reason=Reason.NOTHING_GRANTED, relay=asked)
        )
    return [(NOON, event) for event in events]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A day, and what others did at noon."""
    return make_day(tmp_path_factory.mktemp("ten") / "audit.jsonl", tokens=400, more=others())


def test_who_holds_which_scope_now(day: Day) -> None:
    """The connections that nothing ended, and the token that can still be used."""
    rows = ask(day, "holds", "--at", "2026-11-27T12:00")
    open_ = {name for name, _, _, ended in day.spans if ended is None}
    assert {row["connection"] for row in rows if row["how"] == "connection"} == open_
    assert [row["jti"] for row in rows if row["how"] == "token"] == ["held"]


def test_who_was_connected(day: Day) -> None:
    """Those that had begun and not ended."""
    rows = ask(day, "who", "prices", "--at", "2026-11-26T12:00")
    assert {row["connection"] for row in rows} == day.open_at("prices", NOON) != set()


def test_what_was_asked_and_not_granted(day: Day) -> None:
    """By user, channel and reason, with the count."""
    (row,) = ask(day, "refused")
    assert (row["user"], row["channel"], row["reason"], row["count"]) == (
        "asker",
        "orders.A",
        "nothing_granted",
        2,
    )


def test_what_was_granted_and_never_used(day: Day) -> None:
    """Each grant of a role that no connection used, with its tokens."""
    rows = ask(day, "scopes", "--unused")
    unused = {key: count for key, count in day.granted.items() if not day.used[key]}
    assert {(row["whose"], row["endpoint"], row["scope"]): row["tokens"] for row in rows} == unused | {
        ("holder", "prices", HELD): 1
    }


def test_where_a_token_was_used(day: Day) -> None:
    """Its story, with the addresses."""
    for jti in ("jti-1", "jti-399"):
        rows = ask(day, "why", jti)
        assert Counter(row["action"] for row in rows) == Counter(day.stories[jti])
        assert all(row["address"].startswith("10.0.") for row in rows)


def test_which_tokens_were_replayed(day: Day) -> None:
    """Each of them once."""
    rows = ask(day, "anomalies", "--mark", "replay")
    replayed = [jti for jti, story in day.stories.items() if "connect.denied" in story]
    assert sorted(row["jti"] for row in rows) == sorted(replayed) != []


def test_who_would_lose_what(day: Day, tmp_path: Path) -> None:
    """Guests lose ETH-USD, and the holder loses everything."""
    candidate = tmp_path / "next.toml"
    candidate.write_text(
        '[grants]\ntrader = { prices = ["prices.>"], trades = ["trades.>"] }\nguest.prices = ["prices.BTC-USD"]\n'
    )
    rows = ask(day, "scopes", "--candidate", str(candidate))
    lost = {key: count for key, count in day.lost.items() if count}
    assert {(row["user"], row["endpoint"], row["scope"]): row["tokens"] for row in rows} == lost | {
        ("holder", "prices", HELD): 1
    }


def test_whether_the_log_is_whole(day: Day) -> None:
    """All records are proven, and one changed byte is found."""
    found = CliRunner().invoke(app, ["verify", str(day.path), "--json"])
    assert (found.exit_code, json.loads(found.stdout)["records"]) == (0, sum(day.actions.values()))
    damaged = day.path.with_name("damaged.jsonl")
    damaged.write_bytes(day.path.read_bytes().replace(b"jti-200", b"jti-201", 1))
    assert CliRunner().invoke(app, ["verify", str(damaged)]).exit_code == 10


def test_who_published_on_a_channel(day: Day) -> None:
    """By publisher and address, with the numbers."""
    (row,) = ask(day, "publications", "prices.BTC-USD")
    assert (row["publisher"], row["address"], row["count"], row["first"], row["last"]) == (
        "market",
        "10.1.0.1",
        10,
        1,
        10,
    )


def test_what_a_session_was_sent(day: Day) -> None:
    """By connection and channel, with the numbers."""
    (row,) = ask(day, "sent", "ref-reported")
    assert (row["connection"], row["channel"], row["first"], row["last"], row["count"]) == (
        "reported",
        "prices.BTC-USD",
        1,
        10,
        10,
    )


COMMANDS: dict[Callable[..., None], str] = {
    test_who_holds_which_scope_now: "holds",
    test_who_was_connected: "who",
    test_what_was_asked_and_not_granted: "refused",
    test_what_was_granted_and_never_used: "scopes --unused",
    test_where_a_token_was_used: "why",
    test_which_tokens_were_replayed: "anomalies --mark replay",
    test_who_would_lose_what: "scopes --candidate",
    test_whether_the_log_is_whole: "verify",
    test_who_published_on_a_channel: "publications",
    test_what_a_session_was_sent: "sent",
}


def test_the_readme_names_these_commands() -> None:
    """In the table of the ten questions, in the same order."""
    commands = re.findall(
        r"^\| [^|]+\? \| `relay audit ([^`]+)` \|$", README.read_text("utf-8"), re.MULTILINE
    )
    assert len(commands) == len(COMMANDS) == 10
    for command, expected in zip(commands, COMMANDS.values(), strict=True):
        assert command.startswith(expected)


def ask(day: Day, *question: str) -> list[dict[str, Any]]:
    """Ask, and return the rows of the answer."""
    result = CliRunner().invoke(app, [*question, "--json", "--file", str(day.path)])
    assert result.exit_code == 0, (result.output, result.exception)
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows
