"""GET /v1/audit/questions/QUESTION: what the audit log's index answers, about all of the log or a span of time.

A question runs as `relay audit … --json` in a process of its own, with a lower priority, and its answer is passed on
unread: the relay's event loop has no part in it. One question runs at a time, over all workers. Each one is recorded
as `audit.read`, with what was asked.

The first question to a long log makes its index, which takes minutes. Nobody waits that long for an answer, but the
process goes on: otherwise each question would begin the index again.
"""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.events import Action
from relay.ops.operators import HandlerResult
from relay.ops.paging import check_names
from relay.web.answers import error_answer, json_answer, refusal_answer

MAX_NAME_CHARS = 256
"""Longest name: as long as a user's name may be in the log."""
TIME_S = 30
"""Longest time for an answer. After it, the process goes on with the index."""
INDEX_S = 3600
"""Longest time for the process of a question."""
MAX_ANSWER = 2 << 20
"""Most bytes of an answer: some 5,000 rows."""
_MAX_NOTES = 16 << 10
_MAX_TIME_CHARS = 40
_NICENESS = 10
_ROWS = 1000
"""Most rows of the questions that are asked in SQL; the newest."""
_NOT_INSTALLED = (
    "Questions to the audit log need DuckDB. Install it where the relay runs, and start the relay again: "
    "pip install 'scoped-relay[audit]'."
)


def _quoted(text: str) -> str:
    """Return a text as a value of SQL. The query is run by a process that can read the index and nothing else."""
    return "'" + text.replace("'", "''") + "'"


def _select(query: str, name: str) -> Sequence[str]:
    """Return the command for a query that ends with the name it is about."""
    newest = f"SELECT * FROM ({query} = {_quoted(name)}) ORDER BY 1 DESC LIMIT {_ROWS}"  # noqa: S608  # quoted
    return ["sql", f"--timeout={TIME_S}", "--", newest]


_OF_ADDRESS = """
    SELECT moment AS at, action, outcome, reason, user_id AS "user", publisher, endpoint, jti AS token, connection,
        detail
    FROM lines WHERE address"""
_OF_PUBLISHER = """
    SELECT since, until, address, channel, "count", first, last, dropped, epoch FROM publications WHERE publisher"""

QUESTIONS: Mapping[str, tuple[str, Callable[[str], Sequence[str]]]] = {
    "story": ("a user, session, token or connection", lambda name: ["why", "--", name]),
    "address": ("an address", partial(_select, _OF_ADDRESS)),
    "publisher": ("a publisher", partial(_select, _OF_PUBLISHER)),
    "channel": ("a channel or pattern", lambda name: ["publications", "--", name]),
    "sent": ("a user, session, token or connection", lambda name: ["sent", "--", name]),
    "connected": ("an endpoint", lambda name: ["who", "--", name]),
    "refusals": ("", lambda _: ["stats", "--by-day"]),
}
"""The questions: what each one is about ("": nothing), and the command of `relay audit` that answers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What a question's process wrote, and its exit code."""

    code: int
    answer: bytes
    notes: str


class _TooLongError(Exception):
    """The process wrote more than it may."""


class AuditQuestions:
    """Asks the log at `path`. Its index may have `memory_mb`."""

    def __init__(self, path: Path, *, memory_mb: int) -> None:
        self._path = path.absolute()
        self._running: set[asyncio.Task[_Ended]] = set()
        self._environment = {
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RELAY_AUDIT__PATH": str(self._path),
            "RELAY_AUDIT__INDEX_MEMORY_MB": str(memory_mb),
        } | {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}

    async def serve(self, request: Request, _operator: str) -> HandlerResult:
        """Answer a question."""
        question, command, sought = _read_question(request)
        if self._path.exists() and not self._path.is_file():
            return _refused(
                sought,
                f"Questions need an audit log in a file, and audit.path is {str(self._path)!r}, which is none.",
            )
        if find_spec("duckdb") is None:
            return _refused(sought, _NOT_INSTALLED)
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
                ended = await asyncio.shield(running)
        except TimeoutError:
            return _refused(
                sought,
                f"There is no answer after {TIME_S} s. If the index of a long log is being made, that goes on: ask "
                "again in a minute. Otherwise give a shorter time, or run `relay audit` on that machine.",
            )
        except _TooLongError:
            return _refused(
                sought,
                f"The answer is longer than {MAX_ANSWER >> 20} MB. Give a shorter time, or run `relay audit` on that "
                "machine.",
            )
        except OSError as error:
            return _refused(sought, f"The process for the question can't be started: {error.strerror}.")
        if ended.code == 2:
            return _recorded(
                sought, error_answer(400, "invalid_request", ended.notes), Reason.REQUEST_MALFORMED
            )
        if ended.code:
            return _refused(sought, f"The question failed: {ended.notes or f'exit code {ended.code}'}")
        body = {"question": question, "rows": msgspec.Raw(ended.answer), "notes": ended.notes.splitlines()}
        return _recorded(sought, json_answer(200, body))

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

    def _ended(self, running: asyncio.Task[_Ended]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # perhaps nobody waits for it any more

    async def _run(self, command: Sequence[str], lock: int) -> _Ended:
        """Run a command of `relay audit`, and release the lock.

        Raises:
            TimeoutError: if it takes too long.
            _TooLongError: if it writes too much.
            OSError: if it can't be started.
        """
        try:
            return await self._end_of(command)
        finally:
            os.close(lock)

    async def _end_of(self, command: Sequence[str]) -> _Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "relay", "audit", *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=Path(__file__).parent,  # no settings are here
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        try:
            async with asyncio.timeout(INDEX_S):
                answer, notes = await asyncio.gather(
                    _read(process.stdout, MAX_ANSWER), _read(process.stderr, _MAX_NOTES)
                )
                code = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with the process that runs a query in SQL
                with anyio.CancelScope(shield=True):
                    await process.wait()
        return _Ended(code=code, answer=answer, notes=notes.decode(errors="replace").strip())


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    found = bytearray()
    while block := await stream.read(64 << 10):
        found += block
        if len(found) > most:
            raise _TooLongError
    return bytes(found)


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
        raise MalformedError(f"Give the name of {about}: ?name=…")
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
