"""`relay audit report`: its numbers are those of the log, no text of a log becomes HTML, the file is its owner's."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from relay.audit.chain import Link, seal
from relay.cli.audit import app
from relay.cli.audit.verify import Exit
from relay.core.errors import Reason
from relay.core.events import Action, Event, to_record
from tests.support.audit_canaries import TEXTS, write_canaries
from tests.support.audit_days import BEGIN, Day, make_day


def run(page: Path, *arguments: object) -> Result:
    """Run the command for a page of November 2026."""
    options = ["--html", page, "--until", "2026-11-28T00:00", *arguments]
    return CliRunner().invoke(app, ["report", *map(str, options)])


class Texts(HTMLParser):
    """Names of the elements and attributes of a page, and its texts."""

    def __init__(self, page: str) -> None:
        """Read the page."""
        super().__init__()
        self.names: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the names."""
        self.names |= {tag, *(f"@{name}" for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.texts.append(data)


def test_nothing_of_a_log_becomes_html(tmp_path: Path) -> None:
    """Every text of two chains, with gaps, is on the page as a text, and the page has the elements of an empty log."""
    first, second = write_canaries(tmp_path)
    page, plain, empty = tmp_path / "page.html", tmp_path / "plain.html", tmp_path / "empty.jsonl"
    done = run(page, "-f", first, "-f", second)
    assert done.exit_code == 0, done.output
    empty.touch()
    make_day(tmp_path / "day.jsonl", tokens=50)
    assert run(plain, "-f", tmp_path / "day.jsonl").exit_code == 0
    canaries = Texts(page.read_text())
    assert canaries.names <= Texts(plain.read_text()).names
    shown = [text.translate(dict.fromkeys(map(ord, "\u202e\u2066\x1b"), "\ufffd")) for text in TEXTS]
    for text in shown:
        assert canaries.texts.count(text) > 10
    assert not re.search("[\u202e\u2066\x1b]", page.read_text())


def test_the_numbers_are_those_of_the_other_commands(tmp_path: Path) -> None:
    """Tokens, refusals by day, unused grants, anomalies and heads: as the day was counted, and as `verify` says."""
    day: Day = make_day(tmp_path / "audit.jsonl", tokens=300)
    page = tmp_path / "page.html"
    done = run(page, "-f", day.path, "--period", "3d")
    assert done.exit_code == 0, done.output
    texts = Texts(page.read_text()).texts
    all_ = " ".join(texts)
    refused = day.actions["connect.denied"]
    assert f"2026-11-26: {day.actions['token.issued']}" in texts
    assert f"2026-11-26: {refused}" in texts
    assert "2026-11-25: 0" in texts
    unused = sum(not day.used[grant] for grant in day.granted)
    assert f"{unused} of {len(day.granted)}" in texts
    assert re.search(rf"replay {day.marked} A token was used a second time", all_)
    assert str(day.head) in texts
    assert re.search(r"The log begins only at  *2026-11-26T", all_)
    told = CliRunner().invoke(app, ["stats", "-f", str(day.path), "--json"]).stdout
    assert json.loads(told)["refusals"] == [
        {"action": "connect.denied", "reason": "token_replayed", "count": refused}
    ]
    assert f"connect.denied token_replayed {refused} " in all_


def test_what_was_asked_and_not_granted_is_that_of_its_question(tmp_path: Path) -> None:
    """Requests that got nothing or less, subscriptions, and what was only counted: as `refused` says."""
    rejected = [{"channel": f"orders.{name}", "reason": "channel_forbidden"} for name in "AB"]
    counted = {
        Action.TOKEN_DENIED: {"nothing_granted": 40},
        Action.SUBSCRIBE_DENIED: {"channel_forbidden": 7},
    }
    asked: list[tuple[Action, str, Reason | None, dict[str, Any]]] = [
        (Action.TOKEN_DENIED, "a", Reason.NOTHING_GRANTED, {}),
        (Action.TOKEN_DENIED, "a", Reason.NOTHING_GRANTED, {"asked": {"channels": ["orders.A", "orders.B"]}}),
        *[(Action.TOKEN_ISSUED, user, None, {"rejected": rejected}) for user in "abb"],
        (Action.SUBSCRIBE_DENIED, "c", Reason.CHANNEL_FORBIDDEN, {"channels": ["trades.A"], "count": 3}),
    ]
    events = [
        Event(action=action, user=user, endpoint="prices", reason=reason, relay=relay)
        for action, user, reason, relay in asked
    ]
    events.append(Event(action=Action.DENIALS_AGGREGATED, relay={"denied": counted, "count": 47}))
    day = make_day(tmp_path / "audit.jsonl", tokens=20, more=[(BEGIN, event) for event in events])
    page = tmp_path / "page.html"
    assert run(page, "-f", day.path).exit_code == 0
    told = CliRunner().invoke(app, ["refused", "-f", str(day.path), "--json"]).stdout
    rows: dict[tuple[str, str, str], int] = Counter()
    for row in json.loads(told):
        rows[row["asked_for"], row["endpoint"], row["reason"]] += row["count"]
    assert sorted(rows.values()) == [3, 3, 6, 7, 40]
    all_ = " ".join(text for text in Texts(page.read_text()).texts if text.strip())
    for row, count in rows.items():
        assert " ".join([*filter(None, row), f"{count} "]) in all_


def test_a_log_out_is_nothing_that_an_administrator_did(tmp_path: Path) -> None:
    """Both revoke a session, and a day has thousands of log-outs: only that by an operator is among the changes."""
    path, page, head, text = (
        tmp_path / "audit.jsonl",
        tmp_path / "page.html",
        Link(writer="w" * 32, seq=0, hash="0" * 64),
        b"",
    )
    for relay in ({"session": {"ref": "left"}}, {"session": {"ref": "ended"}, "operator": {"id": "admin-7"}}):
        event = Event(action=Action.SESSION_REVOKED, user="u", relay={"revoked": "session"} | relay)
        record = to_record(event, timestamp="2026-11-26T09:00:00.000Z", event_id="e", node="n")
        line, head = seal(record, head)
        text += line + b"\n"
    path.write_bytes(text)
    assert run(page, "-f", path).exit_code == 0
    texts = Texts(page.read_text()).texts
    assert texts.count("session.revoked") == texts.count("admin-7") == 1


def test_a_head_from_another_place_proves_the_end(tmp_path: Path) -> None:
    """A log that was cut off since is damaged; what is no head is named before anything is read."""
    day, page = make_day(tmp_path / "audit.jsonl", tokens=20), tmp_path / "page.html"
    assert run(page, "-f", day.path, "--head", day.head).exit_code == 0
    assert "and that is its end, as the given head proves" in " ".join(Texts(page.read_text()).texts)
    lines = day.path.read_bytes().splitlines(keepends=True)
    day.path.write_bytes(b"".join(lines[:-1]))
    assert run(page, "-f", day.path, "--head", day.head).exit_code == Exit.CUT_OFF
    assert "damaged" in Texts(page.read_text()).texts
    assert "--head: A head has the form" in str(run(page, "-f", day.path, "--head", "42").exception)


def test_a_damaged_log_and_an_empty_one_say_so(tmp_path: Path) -> None:
    """The exit code of a damaged one is that of `verify`."""
    log, page = tmp_path / "audit.jsonl", tmp_path / "page.html"
    log.touch()
    assert run(page, "-f", log).exit_code == 0
    says = {"empty", "No token was issued.", "No gap in this span.", "The log has no record of this span."}
    assert says <= set(Texts(page.read_text()).texts)
    make_day(log, tokens=20)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:9] + lines[10:]))
    done = run(page, "-f", log)
    assert done.exit_code == Exit.DELETED
    assert "damaged at line 10" in done.stderr
    says = {"damaged", "Records that are missing between others of the log: 1."}
    assert says <= set(Texts(page.read_text()).texts)


def test_the_file_is_its_owners_and_replaces_nothing_but_a_file(tmp_path: Path) -> None:
    """A link, a folder and a pipe stay as they are; a wrong period is named; nothing is left aside."""
    log, page, kept = tmp_path / "audit.jsonl", tmp_path / "page.html", tmp_path / "kept"
    log.touch()
    page.write_text("old")
    page.chmod(0o644)
    assert run(page, "-f", log).exit_code == 0
    assert page.stat().st_mode & 0o777 == 0o600
    kept.write_text("kept")
    page.unlink()
    page.symlink_to(kept)
    for target in (page, tmp_path):
        done = run(target, "-f", log)
        assert "is no regular file" in str(done.exception)
    assert kept.read_text() == "kept"
    assert "can't be written" in str(run(tmp_path / "none" / "page.html", "-f", log).exception)
    assert "--period" in str(run(tmp_path / "new.html", "-f", log, "--period", "a month").exception)
    assert not list(tmp_path.glob(".*"))


def test_a_long_span_has_a_bar_for_each_month(tmp_path: Path) -> None:
    """Centuries of a log are still one chart."""
    day, page = make_day(tmp_path / "audit.jsonl", tokens=20), tmp_path / "page.html"
    assert run(page, "-f", day.path, "--period", "99999d").exit_code == 0
    assert "2026-11: 20" in Texts(page.read_text()).texts
