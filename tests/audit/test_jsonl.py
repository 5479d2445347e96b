"""The auditor: what is recorded, in which order, and that nothing from outside can bend a line."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from relay.audit.jsonl import JsonlAuditor
from relay.core.errors import UnavailableError
from relay.core.events import Action, Client, Event
from tests.support.audit_logs import HOSTILE, an_event, log_bytes, records, users, whole, write_log


async def test_a_record_is_in_the_file_when_record_returns(auditor: JsonlAuditor, path: Path) -> None:
    """When `record` returns, the log has the record, with every member in its place."""
    await auditor.record(an_event(7))
    (record,) = records(path)
    chain = record["relay"].pop("chain")
    event_id = record["event"].pop("id")
    assert len(event_id) == 32
    assert str(auditor.head) == f"{chain['writer']}:1:{chain['hash']}"
    assert record == {
        "@timestamp": "2026-11-22T03:43:20.123Z",
        "event": {
            "action": "connect.denied",
            "category": ["network"],
            "type": ["denied"],
            "outcome": "failure",
            "reason": "token_replayed",
            "sequence": 1,
        },
        "service": {"node": {"name": "node-1"}},
        "user": {"id": "user-7"},
        "client": {"ip": "203.0.113.9"},
        "source": {"ip": "10.0.0.1"},
        "user_agent": {"original": "Mozilla/5.0 (X11)"},
        "http": {"response": {"status_code": 401}},
        "url": {"path": "/ws/prices"},
        "relay": {"token": {"jti": "jti-7", "channels": ["prices.>"]}},
    }


async def test_events_are_recorded_in_the_order_they_came(auditor: JsonlAuditor, path: Path) -> None:
    """Notes and records share one order, over many batches, and none takes another's number or id."""
    waiting = []
    for number in range(1500):
        if number % 3:
            auditor.note(an_event(number))
        else:
            waiting.append(asyncio.ensure_future(auditor.record(an_event(number))))
            await asyncio.sleep(0)  # lets the task make its submission
    assert auditor.lag > 0
    await asyncio.gather(*waiting)
    await auditor.record(an_event(1500))
    found = records(path)
    assert users(path) == [f"user-{number}" for number in range(1501)]
    assert [record["event"]["sequence"] for record in found] == list(range(1, 1502))
    assert len({record["event"]["id"] for record in found}) == 1501
    assert auditor.lag == 0
    assert whole(path)


async def test_closing_writes_what_waits(path: Path) -> None:
    """Events of the last moment before a stop are in the log, and closing twice is no error."""
    auditor = JsonlAuditor.open(path, node="node-1")
    for number in range(2000):
        auditor.note(an_event(number))
    await auditor.aclose()
    await auditor.aclose()
    assert len(records(path)) == 2000
    with pytest.raises(UnavailableError, match="closed"):
        await auditor.record(an_event())


async def test_a_caller_that_stops_waiting_disturbs_nobody(auditor: JsonlAuditor, path: Path) -> None:
    """A cancelled `record` leaves the others, and its own event, in the log."""
    tasks = [asyncio.ensure_future(auditor.record(an_event(number))) for number in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(tasks[0], tasks[2])
    assert tasks[1].cancelled()
    assert users(path) == ["user-0", "user-1", "user-2"]


def test_the_chain_goes_on_after_a_restart(path: Path) -> None:
    """A second run continues numbers and hashes of the first."""
    write_log(path, 3)
    write_log(path, 2)
    assert [record["event"]["sequence"] for record in records(path)] == [1, 2, 3, 4, 5]
    assert len({record["relay"]["chain"]["writer"] for record in records(path)}) == 1
    assert whole(path)


def test_a_torn_line_is_reported_at_the_next_start(path: Path) -> None:
    """Also when no event follows, a restart accounts for what the crash left, and keeps it."""
    write_log(path, 2)
    with path.open("ab") as file:
        file.write(b'{"@timestamp":"2026')
    with capture_logs() as logs:
        write_log(path, 0)
    lines = path.read_bytes().splitlines()
    assert lines[2] == b'{"@timestamp":"2026'
    assert json.loads(lines[3])["event"]["action"] == "audit.gap"
    assert json.loads(lines[3])["relay"]["unreadable"]["bytes"] == len(lines[2]) + 1
    assert whole(path)
    assert [entry["log_level"] for entry in logs] == ["warning"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_makes_one_plain_line(auditor: JsonlAuditor, path: Path, text: str) -> None:
    """Whatever stands in a field from outside: one line, printable, bounded, and the fields stay themselves."""
    client = Client(address=text, peer=text, user_agent=text)
    details = {"publisher": {"id": text}, text: text, "token": {"channels": [text] * 1000}}
    await auditor.record(
        Event(action=Action.CONNECT_DENIED, user=text, client=client, path=text, relay=details)
    )
    await auditor.record(an_event(1))
    data = b"".join(log_bytes(path))
    assert all(byte == 0x0A or 0x20 <= byte <= 0x7E for byte in data)
    assert len(data.splitlines()) == len(data.decode().splitlines()) == 2
    assert len(data) < 1 << 20
    first = records(path)[0]
    assert first["event"]["action"] == "connect.denied"
    assert first["event"]["sequence"] == 1
    assert len(first["user"]["id"]) <= 256 * 6
    assert whole(path)


def nested(depth: int) -> dict[str, Any]:
    """Return a dictionary with `depth` levels."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "details",
    [
        {"x": math.nan},
        {"x": math.inf},
        {"x": object()},
        nested(100_000),
        {f"{number}": "x" * 256 for number in range(10_000)},
    ],
    ids=["NaN", "infinity", "object", "deep", "wide"],
)
async def test_odd_details_are_bounded(auditor: JsonlAuditor, path: Path, details: dict[str, Any]) -> None:
    """Details that have no JSON form, or no end, still make a record."""
    await auditor.record(an_event(1, relay=details))
    assert users(path) == ["user-1"]
    assert whole(path)


@pytest.mark.parametrize(
    "details", [{"x": 10**5000}, {"x": [["\x1b" * 256] * 64] * 64}], ids=["long number", "too long"]
)
async def test_details_that_can_not_be_written_do_not_lose_the_event(
    auditor: JsonlAuditor, path: Path, details: dict[str, Any]
) -> None:
    """That it happened, to whom and why is recorded even if its details can't be, and its neighbours are too."""
    auditor.note(an_event(1))
    auditor.note(an_event(2, relay=details))
    await auditor.record(an_event(3))
    assert users(path) == ["user-1", "user-2", "user-3"]
    assert records(path)[1]["relay"]["unwritable"] == "ValueError"


async def test_details_that_are_made_when_the_record_is_written(auditor: JsonlAuditor, path: Path) -> None:
    """They are in the record; if they can't be made, the event is recorded without them."""

    def failing() -> dict[str, Any]:
        raise ZeroDivisionError

    auditor.note(msgspec.structs.replace(an_event(1), more=lambda: {"sent": [{"channel": "prices.A"}]}))
    auditor.note(msgspec.structs.replace(an_event(2), more=failing))
    await auditor.record(an_event(3))
    assert records(path)[0]["relay"]["sent"] == [{"channel": "prices.A"}]
    assert records(path)[0]["relay"]["token"]["jti"] == "jti-1"
    assert records(path)[1]["relay"]["unwritable"] == "ZeroDivisionError"
    assert whole(path)
    assert whole(path)
