"""GET /v1/audit/questions: what the index answers to operators, and what it refuses to run."""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from relay.ops import audit_questions
from relay.ops.audit_questions import AuditQuestions
from tests.support.operators import OPERATORS, READER, REVOKER, by_command, operate
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import recorded

HOSTILE = "<img src=x onerror=alert(1)>' OR 1=1 --"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators."""
    with running(tmp_path_factory.mktemp("watched"), extra=OPERATORS) as relay:
        yield relay


async def ask(relay: Relay, question: str, **query: str) -> list[dict[str, Any]]:
    """Return the rows that a reader gets."""
    answer = await operate(relay, "GET", f"/v1/audit/questions/{question}?{urlencode(query)}", key=READER)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    assert answer.json()["notes"][-1].startswith("Known up to record")
    return rows


async def test_questions_are_answered_as_the_commands_answer_them(watched: Relay) -> None:
    """Each question once, about a user with a hostile name; and it is recorded who asked what."""
    token = await watched.token(watched.session(sub=HOSTILE))
    async with watched.connect(token, query="?channels=prices.A"):
        await watched.publish("prices.A", 1)
        while not (connected := await ask(watched, "connected", name="prices")):
            pass  # the record of a connection follows within 0.25 s
        assert [row["user"] for row in connected] == [HOSTILE]
    await watched.audited("connection.closed")
    assert (await watched.ask(watched.session(sub=HOSTILE, roles=["nobody"]))).status_code == 403
    await watched.audited("token.denied")
    story = await ask(watched, "story", name=HOSTILE, since="1h")
    assert [row["action"] for row in story] == [
        *("token.issued", "connect.accepted", "connection.closed", "token.denied")
    ]
    assert by_command(watched, HOSTILE) == story
    address = await ask(watched, "address", name=story[0]["address"])
    assert HOSTILE in {row["user"] for row in address}
    assert [row["channel"] for row in await ask(watched, "sent", name=HOSTILE)] == ["prices.A"]
    refusals = await ask(watched, "refusals", since="1h")
    assert {
        "day": story[0]["at"][:10],
        "action": "token.denied",
        "reason": "nothing_granted",
        "count": 1,
    } in refusals
    read = await recorded(
        watched,
        lambda one: one["event"]["action"] == "audit.read" and one["relay"]["sought"]["question"] == "story",
    )
    assert read["relay"]["sought"] == {"question": "story", "name": HOSTILE, "since": "1h"}
    assert read["relay"]["operator"]["id"] == "reader"


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("sent", "--help"),
        ("sent", "-f/etc/passwd"),
        ("address", "' OR 1=1 --"),
        ("publisher", "'; SELECT 1; --"),
    ],
)
async def test_a_name_is_no_option_and_no_query(watched: Relay, question: str, name: str) -> None:
    """It is looked for, and nothing is found."""
    assert await ask(watched, question, name=name) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("sql?name=x", "There are story, address"),
        ("story", "?name="),
        ("story?name=%20", "?name="),
        ("story?name=" + "x" * 257, "256"),
        ("story?name=a%00b", "printable"),
        ("story?name=x&limit=1", "'limit'"),
        ("refusals?name=x", "no name"),
        ("story?name=x&since=" + "1" * 41, "since is a time"),
        ("story?name=x&until=2h%0a--file", "until is a time"),
        ("story?name=x&since=gestern", "'gestern' is no time"),
        ("story?name=never-seen", "'never-seen'"),
        ("channel?name=a..b", "no channel"),
    ],
)
async def test_a_question_that_is_none(watched: Relay, path: str, says: str) -> None:
    """One sentence says what is wrong."""
    answer = await operate(watched, "GET", f"/v1/audit/questions/{path}", key=READER)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert says in answer.json()["message"]


async def test_only_readers_may_ask(watched: Relay) -> None:
    """The right to revoke is another one."""
    answer = await operate(watched, "GET", "/v1/audit/questions/refusals", key=REVOKER)
    assert answer.status_code == 403


async def test_one_question_at_a_time(watched: Relay) -> None:
    """A second one is told to wait, whichever worker it asks; and that is recorded as well."""
    folder = os.open(watched.audit_path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        answer = await operate(watched, "GET", "/v1/audit/questions/refusals?since=9d", key=READER)
    finally:
        os.close(folder)
    assert (answer.status_code, answer.json()["retryable"]) == (429, True)
    assert int(answer.headers["Retry-After"]) > 0
    record = await watched.audited("audit.read", reason="rate_limited")
    assert record["relay"]["sought"] == {"question": "refusals", "since": "9d"}
    assert await ask(watched, "refusals", until="9d") == []


async def answered(path: Path, questions: AuditQuestions | None = None) -> tuple[int, str]:
    """Return the status and the message of an answer about the log at `path`, without a relay."""
    scope = {"type": "http", "query_string": b"", "headers": [], "path_params": {"question": "refusals"}}
    result = await (questions or AuditQuestions(path, memory_mb=256)).serve(Request(scope), "ops")
    body = json.loads(bytes(result.response.body))
    return result.response.status_code, body.get("message", "")


async def test_what_can_not_be_asked_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, too long, no DuckDB; and after each of them the next question is answered."""
    assert ((found := await answered(Path(os.devnull)))[0], "audit.path" in found[1]) == (503, True)
    log = tmp_path / "audit.jsonl"
    log.touch()
    with monkeypatch.context() as changed:
        changed.setattr(audit_questions, "MAX_ANSWER", 1)
        status, message = await answered(log)
        assert (status, "longer than" in message) == (503, True), message
    assert (await answered(log))[0] == 200
    monkeypatch.setattr(audit_questions, "find_spec", lambda _name: None)
    assert ((found := await answered(log))[0], "pip install" in found[1]) == (503, True)


async def test_an_index_is_made_to_its_end_although_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a long log could never be asked here. Until then other questions wait; a longest time ends it too."""
    log = tmp_path / "audit.jsonl"
    log.touch()
    questions = AuditQuestions(log, memory_mb=256)
    with monkeypatch.context() as changed:
        changed.setattr(audit_questions, "TIME_S", 0)
        status, message = await answered(log, questions)
        assert (status, "no answer after 0 s" in message) == (503, True), message
        status, message = await answered(log)
        assert (status, "the index is being made" in message) == (429, True), message
        (ended,) = await asyncio.gather(*questions._running)
        assert (ended.code, ended.answer) == (0, b"[]\n")
        changed.setattr(audit_questions, "INDEX_S", 0)
        assert (await answered(log, questions))[0] == 503
        assert isinstance(
            (await asyncio.gather(*questions._running, return_exceptions=True))[0], TimeoutError
        )
    assert (await answered(log))[0] == 200
