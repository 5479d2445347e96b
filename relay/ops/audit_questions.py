"""GET /v1/audit/questions/QUESTION: what the audit log's index answers, about all of the log or a span of time.

A question runs as `relay audit … --json` in a process of its own (`relay.ops.audit_answers`), and its answer is passed
on unread: the relay's event loop has no part in it. One question runs at a time, over all workers. Each one is recorded
as `audit.read`, with what was asked.

The first question to a long log makes its index, which takes minutes. Nobody waits that long for an answer, but the
process goes on: otherwise each question would begin the index again.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from relay.audit.files import chains
from relay.audit.index.manifest import folder_of, is_changed_now
from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.events import Action
from relay.ops.audit_answers import MAX_ANSWER, Answer, Answers, TooLongError
from relay.ops.operators import HandlerResult
from relay.ops.paging import check_names
from relay.web.answers import error_answer, json_answer, refusal_answer

MAX_NAME_CHARS = 256
"""Longest name: as long as a user's name may be in the log."""
TIME_S = 30
"""Longest time for an answer. After it, the process goes on if it makes the index."""
_MAX_TIME_CHARS = 40
_NEWEST = 1000
"""Most steps of a story: an address can have any number of them."""
_NOT_INSTALLED = (
    "Questions to the audit log need DuckDB. Install it where the relay runs, and start the relay again: "
    "pip install 'scoped-relay[audit]'."
)


def _story(*about: str) -> Sequence[str]:
    return ["why", f"--newest={_NEWEST}", *about]


QUESTIONS: Mapping[str, tuple[str, Callable[[str], Sequence[str]]]] = {
    "story": ("a user, session, token or connection", lambda name: _story("--", name)),
    "address": ("an address", lambda name: _story(f"--address={name}")),
    "publisher": ("a publisher", lambda name: _story(f"--publisher={name}")),
    "channel": ("a channel or pattern", lambda name: ["publications", "--", name]),
    "sent": ("a user, session, token or connection", lambda name: ["sent", "--", name]),
    "connected": ("an endpoint", lambda name: ["who", "--", name]),
    "refusals": ("", lambda _: ["stats", "--by-day"]),
}
"""The questions: what each one is about ("": nothing), and the command of `relay audit` that answers it."""


log = structlog.get_logger("relay.ops")


class AuditQuestions:
    """Asks the log at `path`. Its index may have `memory_mb`."""

    def __init__(self, path: Path, *, memory_mb: int) -> None:
        self._path = path.absolute()
        self._running: set[asyncio.Task[Answer]] = set()
        environment = {
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RELAY_AUDIT__PATH": str(self._path),
            "RELAY_AUDIT__INDEX_MEMORY_MB": str(memory_mb),
        } | {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        self._answers = Answers(environment)

    def close(self) -> None:
        """End the process that answers."""
        self._answers.close()

    async def serve(self, request: Request, _operator: str) -> HandlerResult:
        """Answer a question."""
        question, command, sought = _read_question(request)
        folder = folder_of(self._path)
        if hindrance := self._hindrance(folder):
            return _refused(sought, hindrance)
        try:
            lock = self._locked()
        except BlockingIOError:
            message = (
                "Another question is being answered, or the index is being made. Ask again in a few seconds."
            )
            busy = refusal_answer(Refusal(reason=Reason.RATE_LIMITED), message=message)
            return _recorded(sought, busy, Reason.RATE_LIMITED)
        except OSError as error:
            return _refused(
                sought, f"The folder of the audit log can't be opened or locked: {error.strerror}."
            )
        running = asyncio.create_task(self._run(command, lock))
        self._running.add(running)
        running.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(TIME_S):
                answer = await asyncio.shield(running)
        except TimeoutError:
            if is_changed_now(folder):
                return _refused(
                    sought,
                    f"The index of the audit log is being made, and there is no answer after {TIME_S} s. It goes on: "
                    "ask again in a minute.",
                )
            running.cancel()
            return _refused(
                sought,
                f"There is no answer after {TIME_S} s. Questions get only the CPU that nothing else wants. Give a "
                "shorter time, ask later, or run `relay audit` on that machine.",
            )
        except TooLongError:
            return _refused(
                sought,
                f"The answer is longer than {MAX_ANSWER >> 20} MB. Give a shorter time, or run `relay audit` on that "
                "machine.",
            )
        except OSError as error:
            return _refused(
                sought, f"The process for the question can't be started, or was killed: {error.strerror}."
            )
        if answer.code == 2:
            said = answer.notes
            if said.startswith(("--since", "--until")):  # here, these are no options
                said = said.replace("--since", "since").replace("--until", "until")
            return _recorded(sought, error_answer(400, "invalid_request", said), Reason.REQUEST_MALFORMED)
        if answer.code:
            log.error(
                "a question to the audit log failed", sought=sought, code=answer.code, said=answer.notes
            )
            ended = f"signal {-answer.code}" if answer.code < 0 else f"exit code {answer.code}"
            return _refused(
                sought, f"The question's process failed ({ended}). The relay's process log says why."
            )
        body = {"question": question, "rows": msgspec.Raw(answer.rows), "notes": answer.notes.splitlines()}
        return _recorded(sought, json_answer(200, body))

    def _hindrance(self, folder: Path) -> str:
        """Return why nothing can be asked, and what to do; "" if nothing is known to be wrong. `folder`: the index."""
        if self._path.exists() and not self._path.is_file():
            return f"Questions need an audit log in a file, and audit.path is {str(self._path)!r}, which is none."
        if not all(file.exists() for chain in chains(self._path) for file in chain):
            return (
                f"The audit log is not at {str(self._path)!r} any more: it was moved or removed. Start the relay "
                "again, so that it writes a log there."
            )
        if find_spec("duckdb") is None:
            return _NOT_INSTALLED
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            return (
                f"The relay's user can't write the index of the audit log, {str(folder)!r}: another user asked "
                "first. Remove that folder, or make the relay's user its owner."
            )
        return ""

    def _locked(self) -> int:
        """Lock the log's folder, which makes no file, holds over all workers, and ends with this process.

        Raises:
            BlockingIOError: if a question has the lock.
            OSError: if it can't be locked.
        """
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(folder)
            raise
        return folder

    def _ended(self, running: asyncio.Task[Answer]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # perhaps nobody waits for it any more

    async def _run(self, command: Sequence[str], lock: int) -> Answer:
        """Run a command, and release the lock. It raises what `Answers.to` raises."""
        try:
            return await self._answers.to(command)
        finally:
            os.close(lock)


def _read_question(request: Request) -> tuple[str, Sequence[str], Mapping[str, str]]:
    """Return the question, its command, and what the log has of it.

    Raises:
        MalformedError: if it is none.
    """
    question, query = request.path_params["question"], request.query_params
    if question not in QUESTIONS:
        raise MalformedError(f"There is no question {question[:40]!r}. There are {', '.join(QUESTIONS)}.")
    about, command_of = QUESTIONS[question]
    check_names(query, ("name", "since", "until"))
    name, since, until = (query.get(key, "").strip() for key in ("name", "since", "until"))
    if about and not name:
        raise MalformedError(f"name is missing. Give {about}.")
    if name and not about:
        raise MalformedError(f"{question} is about no name. Leave it out.")
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise MalformedError(f"name has at most {MAX_NAME_CHARS} characters, all of them printable.")
    for key, at in (("since", since), ("until", until)):
        if len(at) > _MAX_TIME_CHARS or not at.isprintable():
            raise MalformedError(f"{key} is a time: 2h, 30m or 7d for so long ago, or 2026-11-26T09:00.")
    command, *rest = command_of(name)
    times = [f"--{key}={at}" for key, at in (("since", since), ("until", until)) if at]
    given = {"question": question, "name": name, "since": since, "until": until}
    sought = {key: value for key, value in given.items() if value}
    return question, [command, "--json", *times, *rest], sought


def _refused(sought: Mapping[str, str], message: str) -> HandlerResult:
    return _recorded(sought, error_answer(503, "unavailable", message), Reason.AUDIT_UNAVAILABLE)


def _recorded(sought: Mapping[str, str], response: Response, reason: Reason | None = None) -> HandlerResult:
    return HandlerResult(
        response=response, recorded={"sought": sought}, action=Action.AUDIT_READ, reason=reason
    )
