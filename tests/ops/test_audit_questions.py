"""GET /v1/audit/questions: what the index answers to operators, and what it refuses to run."""

import asyncio
import fcntl
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.requests import Request

from relay.ops import audit_answers, audit_questions
from relay.ops.audit_questions import AuditQuestions
from tests.support.operators import OPERATORS, READER, REVOKER, by_command, operate
from tests.support.relay_process import PUBLISHER_KEY, Relay, running

HOSTILE = "<img src=x onerror=alert(1)>' OR 1=1 --"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators."""
    with running(tmp_path_factory.mktemp("watched"), extra=OPERATORS) as relay:
        yield relay


@pytest.fixture
def even_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions without a relay are answered although other tests take all CPU."""
    monkeypatch.setattr(audit_answers, "leave_cpu_to_others", lambda _pid: None)


async def answer_to(relay: Relay, question: str) -> httpx.Response:
    """Ask as a reader, and again if the machine was too busy for an answer."""
    path = f"/v1/audit/questions/{question}"
    async with asyncio.timeout(300):
        while (answer := await operate(relay, "GET", path, key=READER)).status_code in (429, 503):
            pass
    return answer


async def ask(relay: Relay, question: str, **query: str) -> list[dict[str, Any]]:
    """Return the rows that a reader gets."""
    answer = await answer_to(relay, f"{question}?{urlencode(query)}")
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
    assert [row for row in await ask(watched, "address", name="127.0.0.1") if row["user"]] == story
    assert [row["channel"] for row in await ask(watched, "sent", name=HOSTILE)] == ["prices.A"]
    refusals = await ask(watched, "refusals", since="1h")
    assert {
        "day": story[0]["at"][:10],
        "action": "token.denied",
        "reason": "nothing_granted",
        "count": 1,
    } in refusals
    read = await watched.recorded(
        lambda one: one["event"]["action"] == "audit.read" and one["relay"]["sought"]["question"] == "story",
    )
    assert read["relay"]["sought"] == {"question": "story", "name": HOSTILE, "since": "1h"}
    assert read["relay"]["operator"]["id"] == "reader"


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("sent", "--help"),
        ("sent", "-f/etc/passwd"),
        ("story", "--version"),
        ("address", "' OR 1=1 --"),
        ("publisher", "--file=/etc/passwd"),
    ],
)
async def test_a_name_is_no_option_and_no_query(watched: Relay, question: str, name: str) -> None:
    """It is looked for, and nobody has it: that is an error, because a mistyped name must not look innocent."""
    answer = await answer_to(watched, f"{question}?{urlencode({'name': name, 'since': '1h'})}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["message"].startswith("Neither the settings nor the log know")
    assert await ask(watched, "channel", name="--help", since="1h") == []


async def test_the_story_of_a_publisher(watched: Relay) -> None:
    """What it published, what it was refused, and who only claims to be it; a name that nobody knows is a mistake."""
    await watched.publish("prices.A", 1)
    elsewhere = b'{"channel":"elsewhere.A","data":1}'
    assert (await watched.publish_raw(elsewhere)).status_code == 403
    assert (await watched.publish_raw(elsewhere, key=PUBLISHER_KEY + "x")).status_code == 401
    await watched.audited("publish.denied", reason="publisher_unknown")
    name = PUBLISHER_KEY.partition(".")[0]
    denied = [row for row in await ask(watched, "publisher", name=name) if row["action"] == "publish.denied"]
    assert [row["reason"] for row in denied] == ["channel_forbidden", "publisher_unknown"]
    assert "which nothing proves" in denied[1]["sentence"]
    answer = await answer_to(watched, f"publisher?name={name}x")
    assert (answer.status_code, f"Did you mean {name}?" in answer.json()["message"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("sql?name=x", "There are story, address"),
        ("story", "name is missing. Give a user"),
        ("story?name=%20", "name is missing. Give a user"),
        ("story?name=" + "x" * 257, "256"),
        ("story?name=a%00b", "printable"),
        ("story?name=x&limit=1", "'limit'"),
        ("refusals?name=x", "no name"),
        ("story?name=x&since=" + "1" * 41, "since is a time"),
        ("story?name=x&until=2h%0a--file", "until is a time"),
        ("story?name=x&since=gestern", "since: 'gestern' is no time"),
        ("refusals?since=2026-11-20&until=2026-11-19", "later than until"),
        ("story?name=never-seen", "'never-seen'"),
        ("channel?name=a..b", "no channel"),
    ],
)
async def test_a_question_that_is_none(watched: Relay, path: str, says: str) -> None:
    """One sentence says what is wrong."""
    answer = await answer_to(watched, path)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert says in answer.json()["message"]
    assert not re.search(r"(^|\s)--\w", answer.json()["message"]), "there are no options here"


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
    with nullcontext(questions) if questions else closing(AuditQuestions(path, memory_mb=256)) as asked:
        scope = {"type": "http", "query_string": b"", "headers": [], "path_params": {"question": "refusals"}}
        result = await asked.serve(Request(scope), "ops")
    body = json.loads(bytes(result.response.body))
    return result.response.status_code, body.get("message", "")


@pytest.mark.usefixtures("even_priority")
async def test_what_can_not_be_asked_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, too long, no DuckDB; and after each of them the next question is answered."""
    assert ((found := await answered(Path(os.devnull)))[0], "audit.path" in found[1]) == (503, True)
    log = tmp_path / "audit.jsonl"
    assert ((found := await answered(log))[0], "was moved or removed" in found[1]) == (503, True)
    log.touch()
    with monkeypatch.context() as changed:
        changed.setattr(audit_answers, "MAX_ANSWER", 1)
        status, message = await answered(log)
        assert (status, "longer than" in message) == (503, True), message
    assert (await answered(log))[0] == 200
    with monkeypatch.context() as changed:
        changed.setattr(os, "access", lambda *_: False)  # root may write anywhere
        assert ((found := await answered(log))[0], "another user asked first" in found[1]) == (503, True)
    monkeypatch.setattr(audit_questions, "find_spec", lambda _name: None)
    assert ((found := await answered(log))[0], "pip install" in found[1]) == (503, True)


@pytest.mark.usefixtures("even_priority")
async def test_an_index_is_made_to_its_end_although_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a long log could never be asked here. Until then other questions wait; a longest time ends it too."""
    log = tmp_path / "audit.jsonl"
    log.touch()
    assert (await answered(log))[0] == 200
    with closing(AuditQuestions(log, memory_mb=256)) as questions, monkeypatch.context() as changed:
        changed.setattr(audit_questions, "TIME_S", 0)
        with (tmp_path / "audit-index" / ".lock").open("rb") as lock:  # as the one who makes it
            fcntl.flock(lock, fcntl.LOCK_EX)
            status, message = await answered(log, questions)
            assert (status, "It goes on" in message) == (503, True), message
            status, message = await answered(log)
            assert (status, "the index is being made" in message) == (429, True), message
        (ended,) = await asyncio.gather(*questions._running)
        assert (ended.code, ended.rows) == (0, b"[]\n")
        changed.setattr(audit_answers, "LONGEST_S", 0)
        changed.setattr(audit_questions, "is_changed_now", lambda _folder: True)
        assert (await answered(log, questions))[0] == 503
        assert isinstance(
            (await asyncio.gather(*questions._running, return_exceptions=True))[0], TimeoutError
        )
    assert (await answered(log))[0] == 200


@pytest.mark.usefixtures("even_priority")
async def test_a_question_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not keep others waiting, if it is not the index that takes so long."""
    log = tmp_path / "audit.jsonl"
    log.touch()
    with closing(AuditQuestions(log, memory_mb=256)) as questions:
        with monkeypatch.context() as changed:
            changed.setattr(audit_questions, "TIME_S", 0)
            status, message = await answered(log, questions)
            assert (status, "Give a shorter time" in message) == (503, True), message
            await asyncio.wait(questions._running)
        assert (await answered(log, questions))[0] == 200


@pytest.mark.usefixtures("even_priority")
async def test_one_process_answers_until_it_is_killed(tmp_path: Path) -> None:
    """It stays, and is replaced if it dies; without questions it ends."""
    log = tmp_path / "audit.jsonl"
    log.touch()
    with closing(AuditQuestions(log, memory_mb=256)) as questions:
        assert (await answered(log, questions))[0] == 200
        first = process_of(questions)
        assert (await answered(log, questions))[0] == 200
        assert process_of(questions) is first
        first.kill()
        await asyncio.to_thread(first.wait)
        assert (await answered(log, questions))[0] == 200
        second = process_of(questions)
    assert await asyncio.to_thread(second.wait) == -signal.SIGKILL


async def test_the_process_gets_only_cpu_that_nothing_else_wants() -> None:
    """From its start, and in the relay's session: the kernel shares out the CPU between sessions first."""
    process = audit_answers._Process({})
    pid = process._process.pid
    found = (
        os.getpriority(os.PRIO_PROCESS, pid),
        os.sched_getscheduler(pid),
        os.getsid(pid),
        os.getpgid(pid),
    )
    process.kill()
    assert found == (19, os.SCHED_IDLE, os.getsid(0), pid)


def process_of(questions: AuditQuestions) -> "subprocess.Popen[bytes]":
    """Return the process that waits for the next question."""
    process = questions._answers._process
    assert process is not None
    return process._process


@pytest.mark.usefixtures("even_priority")
async def test_a_process_that_is_killed_while_it_answers(tmp_path: Path) -> None:
    """The operator is told, and the next question is answered."""
    log = tmp_path / "audit.jsonl"
    log.touch()
    with closing(AuditQuestions(log, memory_mb=256)) as questions:
        assert (await answered(log, questions))[0] == 200
        process = process_of(questions)
        process.send_signal(signal.SIGSTOP)
        asking = asyncio.create_task(answered(log, questions))
        await asyncio.sleep(0)  # it begins; the question is sent before it waits
        await asyncio.sleep(0)
        assert questions._answers._process is None
        process.kill()
        status, message = await asking
        assert (status, "was killed" in message) == (503, True), message
        assert (await answered(log, questions))[0] == 200
