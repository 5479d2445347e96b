"""The auditor that everybody is given: it marks, bounds floods, and passes on all else as it is."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from relay.audit.anomalies import ClientIdentity
from relay.audit.budget import MAX_AWAITED
from relay.audit.jsonl import JsonlAuditor
from relay.audit.watch import WatchedAuditor, show_event
from relay.core.errors import Reason, UnavailableError
from relay.core.events import Action, Client, Event, to_labels, to_record
from tests.support.audit_logs import full_disk, records, whole

ASKERS = ClientIdentity(b"k" * 32)
CLIENT = Client(address="192.0.2.1", user_agent="Mozilla/5.0 (X11)")


def opened(path: Path, *, denials: int = 5) -> WatchedAuditor:
    """Return an auditor in front of a real log."""
    return WatchedAuditor(
        JsonlAuditor.open(path, node="node-1"), client_identity=ASKERS, denials=denials, subscriptions=3
    )


def connect(reason: Reason | None = None, client: Client = CLIENT, asker: str | None = None) -> Event:
    """Return what the stream reports of a connection whose token `CLIENT` asked for."""
    return Event(
        action=Action.CONNECT_DENIED if reason else Action.CONNECT_ACCEPTED,
        reason=reason,
        user="alice",
        client=client,
        asker=ASKERS.claim("j1", CLIENT) if asker is None else asker,
        relay={"token": {"jti": "j1"}},
    )


def marks(record: dict[str, Any]) -> list[str] | None:
    """Return a record's marks, None if it has no such member."""
    found: list[str] | None = record["relay"].get("anomalies")
    return found


async def test_each_kind_of_mark(tmp_path: Path) -> None:
    """An event gets all anomalies that apply to it."""
    auditor = opened(tmp_path / "audit.jsonl")
    moved = Client(address="198.51.100.1", user_agent=CLIENT.user_agent)
    auditor.note(connect())
    auditor.note(connect(client=moved))
    auditor.note(connect(client=Client(address=CLIENT.address, user_agent="curl")))
    auditor.note(connect(Reason.TOKEN_REPLAYED, moved))
    auditor.note(connect(Reason.TOKEN_AUDIENCE, asker=""))
    await auditor.record(connect(Reason.TOKEN_ORIGIN))
    auditor.note(connect(Reason.ORIGIN_MISSING))
    auditor.note(connect(Reason.TOKEN_EXPIRED))
    await auditor.aclose()
    found = sorted(map(str, map(marks, records(tmp_path / "audit.jsonl"))))
    assert found == sorted(
        map(
            str,
            [
                None,
                ["other_address"],
                ["other_browser"],
                ["replay", "other_address"],
                ["wrong_endpoint"],
                ["origin_mismatch"],
                ["origin_mismatch"],
                None,
            ],
        )
    )
    assert whole(tmp_path / "audit.jsonl")


async def test_the_claim_is_not_recorded(tmp_path: Path) -> None:
    """It is for comparing alone."""
    auditor = opened(tmp_path / "audit.jsonl")
    auditor.note(connect())
    await auditor.aclose()
    assert ASKERS.claim("j1", CLIENT).encode() not in (tmp_path / "audit.jsonl").read_bytes()


async def test_a_flood_is_counted_and_reported(tmp_path: Path) -> None:
    """So many single records, and at the minute's end one that says how many more there were, of what, from whom."""
    auditor = opened(tmp_path / "audit.jsonl")
    for _ in range(1000):
        auditor.note(Event(action=Action.TOKEN_DENIED, reason=Reason.CSRF_FAILED, client=CLIENT))
    auditor.note(Event(action=Action.LOGOUT, user="alice"))
    auditor.end_minute()
    auditor.end_minute()
    auditor.note(Event(action=Action.TOKEN_DENIED, reason=Reason.CSRF_FAILED, client=CLIENT))
    await auditor.aclose()
    found = records(tmp_path / "audit.jsonl")
    actions = [record["event"]["action"] for record in found]
    assert actions == ["token.denied"] * 5 + ["logout", "denials.aggregated", "token.denied"]
    told = found[-2]["relay"]
    assert (told["denied"], told["count"]) == ({"token.denied": {"csrf_failed": 995}}, 995)
    assert told["addresses"] == {"192.0.2.1": 995}
    assert told["since"].endswith("+00:00")
    assert marks(found[-2]) == ["denial_burst"]
    assert found[-2]["event"]["outcome"] == "failure"


async def test_a_burst_is_marked_on_single_records_too(tmp_path: Path) -> None:
    """The first misuse of each token has its record; from the twentieth of a minute on they are a burst."""
    auditor = opened(tmp_path / "audit.jsonl")
    for number in range(25):
        event = connect(Reason.TOKEN_REPLAYED, asker="")
        auditor.note(msgspec.structs.replace(event, relay={"token": {"jti": f"token-{number}"}}))
    await auditor.aclose()
    found = [marks(record) for record in records(tmp_path / "audit.jsonl")]
    assert found == [["replay"]] * 19 + [["replay", "denial_burst"]] * 6


async def test_subscriptions_beyond_the_budget_are_counted(tmp_path: Path) -> None:
    """A session that subscribes again and again can't fill the disk. The record at the minute's end names it."""
    auditor = opened(tmp_path / "audit.jsonl")
    for _ in range(10):
        auditor.note(Event(action=Action.SUBSCRIBE_ACCEPTED, client=CLIENT, relay={"session": {"ref": "s1"}}))
    auditor.end_minute()
    await auditor.aclose()
    *single, told = records(tmp_path / "audit.jsonl")
    assert [record["event"]["action"] for record in single] == ["subscribe.accepted"] * 3
    assert told["event"]["action"] == "subscriptions.aggregated"
    assert told["event"]["outcome"] == "success"
    assert (told["relay"]["count"], told["relay"]["sessions"]) == (7, {"s1": 7})
    assert told["relay"]["since"].endswith("+00:00")
    assert marks(told) is None


async def test_what_was_counted_is_written_at_the_end(tmp_path: Path) -> None:
    """A relay that stops within the minute still tells."""
    auditor = opened(tmp_path / "audit.jsonl")
    for _ in range(7):
        auditor.note(Event(action=Action.TOKEN_DENIED, reason=Reason.CSRF_FAILED, client=CLIENT))
    await auditor.aclose()
    assert records(tmp_path / "audit.jsonl")[-1]["relay"]["count"] == 2


async def test_observers_see_every_event_once(tmp_path: Path) -> None:
    """Observers also get denials that are only counted, and an observer's exception has no effect."""
    seen: list[dict[str, str]] = []

    def fail(event: Event) -> None:
        raise RuntimeError("a broken counter")

    auditor = WatchedAuditor(
        JsonlAuditor.open(tmp_path / "audit.jsonl", node="node-1"),
        client_identity=ASKERS,
        denials=5,
        subscriptions=3,
        observers=[fail, lambda event: seen.append(to_labels(event))],
    )
    with capture_logs() as logs:
        for _ in range(30):
            auditor.note(connect(Reason.TOKEN_EXPIRED))
        await auditor.record(connect())
        await auditor.aclose()
    assert Counter(label["outcome"] for label in seen) == {"failure": 30, "success": 1}
    assert seen[0] == {
        "action": "connect.denied",
        "outcome": "failure",
        "reason": "token_expired",
        "endpoint": "",
    }
    assert {line["log_level"] for line in logs} == {"error"}
    log = records(tmp_path / "audit.jsonl")
    told = next(record for record in log if record["event"]["action"] == "denials.aggregated")
    assert len(log) - 1 + told["relay"]["count"] == len(seen)


async def test_what_could_not_be_recorded_is_not_seen(tmp_path: Path) -> None:
    """A token that was not handed out, because the log was closed, is no token in any figure."""
    seen: list[Event] = []
    auditor = WatchedAuditor(
        JsonlAuditor.open(tmp_path / "audit.jsonl", node="node-1"),
        client_identity=ASKERS,
        denials=5,
        subscriptions=3,
        observers=[seen.append],
    )
    await auditor.aclose()
    with pytest.raises(UnavailableError):
        await auditor.record(connect())
    assert seen == []


def test_a_line_of_the_process_log_says_what_the_record_says() -> None:
    """The log line of an event has the action, outcome, reason, user and token of its record, without empty fields."""
    event = connect(Reason.TOKEN_REPLAYED)
    with capture_logs() as logs:
        show_event(event)
    record = to_record(event, timestamp="t", event_id="i", node="n")
    assert logs == [
        {
            "event": "event",
            "log_level": "debug",
            "action": record["event"]["action"],
            "outcome": record["event"]["outcome"],
            "reason": record["event"]["reason"],
            "user": record["user"]["id"],
            "jti": record["relay"]["token"]["jti"],
        }
    ]


async def test_theft_is_in_the_file_before_it_is_answered(tmp_path: Path) -> None:
    """The first refusal of each token, and of each log-in with a spent refresh token, is waited for."""
    path = tmp_path / "audit.jsonl"
    auditor = opened(path)
    spent = Event(
        action=Action.SESSION_REFRESH_DENIED,
        reason=Reason.REFRESH_SPENT,
        user="alice",
        client=CLIENT,
        relay={"session": {"ref": "r1"}},
    )
    for number, event in enumerate(
        (connect(Reason.TOKEN_REPLAYED), spent, connect(Reason.TOKEN_AUDIENCE)), 1
    ):
        await auditor.note_refusal(event)
        assert len(records(path)) == number
    for _ in range(20):
        await auditor.note_refusal(spent)
    other = msgspec.structs.replace(spent, relay={"session": {"ref": "r2"}})
    await auditor.note_refusal(other)
    early = [record["relay"].get("answered_early", 0) for record in records(path)]
    assert early == [0, 0, 0, 1, 1, 18]
    await auditor.note_refusal(connect(Reason.TOKEN_REPLAYED))
    await auditor.aclose()
    last = records(path)[-1]
    assert (last["event"]["action"], last["relay"]["answered_early"]) == ("denials.aggregated", 1)
    assert whole(path)


async def test_a_full_disk_does_not_hold_a_refusal(tmp_path: Path) -> None:
    """It is answered, and counted as lost."""
    path = tmp_path / "audit.jsonl"
    auditor = opened(path)
    await auditor.record(connect())
    with full_disk(path):
        await auditor.note_refusal(connect(Reason.TOKEN_REPLAYED))
    await auditor.aclose()
    assert [record["relay"].get("lost") for record in records(path)[1:]] == [{"connect.denied": 1}]


async def test_a_flood_does_not_wait(tmp_path: Path) -> None:
    """Beyond the budget of a minute a refusal is answered at once, and its record says so."""
    path = tmp_path / "audit.jsonl"
    auditor = opened(path)
    for number in range(MAX_AWAITED + 5):
        event = connect(Reason.TOKEN_REPLAYED)
        await auditor.note_refusal(
            msgspec.structs.replace(event, asker="", relay={"token": {"jti": f"j{number}"}})
        )
    in_file = len(records(path))
    assert in_file == MAX_AWAITED
    await auditor.aclose()
    refused = [one for one in records(path) if one["event"]["action"] == "connect.denied"]
    assert [one["relay"].get("answered_early", 0) for one in refused] == [0] * MAX_AWAITED + [1] * 5
