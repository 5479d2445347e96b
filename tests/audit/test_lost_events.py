"""Events that can't be written: refused, counted, reported; never lost in silence."""

import asyncio
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.audit import jsonl
from relay.audit.jsonl import JsonlAuditor
from relay.core.errors import Reason, UnavailableError
from relay.core.events import Action, Event
from tests.support.audit_logs import an_event, disk_with, full_disk, gaps, intact_users, users, whole

FULL = Path("/dev/full")
"""The kernel's own full disk."""


async def test_a_full_disk_refuses_records_and_takes_notes() -> None:
    """`record` raises with the documented reason, `note` never raises, and the process's own log names the loss."""
    auditor = JsonlAuditor.open(FULL, node="node-1")
    with capture_logs() as logs:
        with pytest.raises(UnavailableError, match="No space left on device") as refused:
            await auditor.record(an_event())
        assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
        auditor.note(an_event())
        auditor.note(an_event())
        await auditor.aclose()
    assert [entry["event"] for entry in logs] == [
        "the audit log can't be written",
        "audit events are lost",
    ]
    assert logs[-1]["lost"] == {"connect.denied": 2}


async def test_lost_notes_are_reported_before_the_next_event(auditor: JsonlAuditor, path: Path) -> None:
    """The first record after a full disk counts what was lost, by action, since when and why."""
    await auditor.record(an_event(0))
    with full_disk(path):
        auditor.note(an_event(1))
        auditor.note(Event(action=Action.LOGOUT))
        auditor.note(Event(action=Action.LOGOUT))
        with pytest.raises(UnavailableError, match="File too large"):
            await auditor.record(an_event(2))
    await auditor.record(an_event(3))
    assert users(path) == ["user-0", "audit.gap", "user-3"]
    (gap,) = gaps(path)
    assert gap["lost"] == {"connect.denied": 1, "logout": 2}
    assert (gap["cause"], gap["since"]) == ("File too large", "2026-11-22T03:43:20.123Z")
    assert whole(path)


async def test_lost_notes_are_reported_without_another_event(auditor: JsonlAuditor, path: Path) -> None:
    """Nothing has to happen for the gap record to come: the auditor tries again by itself."""
    with full_disk(path):
        auditor.note(an_event())
        with pytest.raises(UnavailableError):
            await auditor.record(an_event())
    assert auditor._retrying is not None
    await auditor._retrying
    assert [gap["lost"] for gap in gaps(path)] == [{"connect.denied": 1}]
    with full_disk(path):
        auditor.note(an_event())
        with pytest.raises(UnavailableError):
            await auditor.record(an_event())
    await auditor._retrying
    assert [gap["lost"] for gap in gaps(path)] == [{"connect.denied": 1}] * 2


@pytest.mark.parametrize("room", [1, 300, 700, 1500])
async def test_a_batch_that_went_in_by_half_is_known_by_half(
    auditor: JsonlAuditor, path: Path, room: int
) -> None:
    """Each caller of a torn batch learns the truth about its own event, and the chain goes on."""
    await auditor.record(an_event(0))
    with full_disk(path, room=room):
        tasks = [asyncio.ensure_future(auditor.record(an_event(number))) for number in range(1, 6)]
        auditor.note(an_event(6))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await auditor.record(an_event(7))
    recorded = [f"user-{number}" for number, outcome in enumerate(outcomes, 1) if outcome is None]
    noted = ["user-6"] if "user-6" in intact_users(path) else []
    assert intact_users(path) == ["user-0", *noted, *recorded, *["audit.gap"] * len(gaps(path)), "user-7"]
    assert len(recorded) < 5
    assert [gap["lost"] for gap in gaps(path) if "lost" in gap] == ([] if noted else [{"connect.denied": 1}])
    assert whole(path)


async def test_a_flood_of_notes_is_bounded_and_counted(
    auditor: JsonlAuditor, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound notes are counted instead of kept, and `record` still has room."""
    monkeypatch.setattr(jsonl, "MAX_NOTES", 10)
    for number in range(25):
        auditor.note(an_event(number))
    assert auditor.lag == 10
    await auditor.record(an_event(25))
    assert users(path) == ["audit.gap", *(f"user-{number}" for number in range(10)), "user-25"]
    assert gaps(path)[0]["lost"] == {"connect.denied": 15}
    assert auditor.lost == {"connect.denied": 15}, "also after a gap record has told of them"


async def test_a_disk_that_hangs_is_as_good_as_one_that_refuses(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`record` gives up in time, so that a token request gets its 503."""
    monkeypatch.setattr(jsonl, "_ANSWER_WITHIN_S", 0.01)
    auditor = JsonlAuditor.open(path, node="node-1")
    going_on = threading.Event()

    def hang() -> None:
        going_on.wait()

    hanging = asyncio.ensure_future(auditor._commits.run(hang))
    with pytest.raises(UnavailableError, match="no answer within") as refused:
        await auditor.record(an_event())
    assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
    going_on.set()
    await hanging
    await auditor.aclose()


async def test_a_note_after_the_end_is_said_aloud(path: Path) -> None:
    """A part that reports after the log was closed loses its event, but not in silence."""
    auditor = JsonlAuditor.open(path, node="node-1")
    await auditor.aclose()
    with capture_logs() as logs:
        auditor.note(an_event())
    assert [(entry["log_level"], entry["action"]) for entry in logs] == [("error", "connect.denied")]


def test_a_note_without_an_event_loop_is_counted(path: Path) -> None:
    """`note` never raises, not even from where nothing can be queued."""
    auditor = JsonlAuditor.open(path, node="node-1")
    auditor.note(an_event())
    asyncio.run(auditor.aclose())
    assert gaps(path)[0]["lost"] == {"connect.denied": 1}


async def test_failure_and_recovery_are_logged_once(auditor: JsonlAuditor, path: Path) -> None:
    """An operator reads two lines for an outage, not one for each event."""
    with capture_logs() as logs:
        with disk_with(0):
            for number in range(5):
                with pytest.raises(UnavailableError):
                    await auditor.record(an_event(number))
        await auditor.record(an_event(9))
    assert [entry["event"] for entry in logs] == [
        "the audit log can't be written",
        "the audit log is written again",
    ]
