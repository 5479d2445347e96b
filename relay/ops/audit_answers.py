"""The process that answers questions to the audit log: `relay.cli.audit.answering`.

It runs only when nothing else wants its core. It stays for some minutes after an answer, because its start takes longer
than most answers, and a relay with many connections should fork rarely.
"""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

WARM_S = 300
"""Time for which the process waits for the next question. It has some 70 MB."""
LONGEST_S = 3600
"""Longest time for a question, whose process may have to make the index."""
MAX_ANSWER = 2 << 20
"""Most bytes of an answer: some 5,000 rows."""
_BLOCK = 64 << 10
_NICENESS = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command wrote, and its exit code; a negative one is the signal that ended it."""

    code: int
    rows: bytes
    notes: str


class TooLongError(Exception):
    """The command wrote more than it may."""


class Answers:
    """Asks one question at a time. The process has only the variables of `environment`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: _Process | None = None
        self._end: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def to(self, command: Sequence[str]) -> Answer:
        """Run a command of `relay audit`. If that is cancelled or fails, its process is killed.

        Raises:
            TimeoutError: if it takes too long.
            TooLongError: if it writes too much.
            OSError: if the process can't be started, or dies.
        """
        process, self._process = self._process, None
        if self._end is not None:
            self._end.cancel()
        if process is not None and process.is_dead:
            process.kill()
            process = None
        process = process or _Process(self._environment)
        try:
            async with asyncio.timeout(LONGEST_S):
                answer = await process.answer(command)
        except BaseException:
            process.kill()
            raise
        self._process = process
        if self._is_closed:
            self.close()
        else:
            self._end = asyncio.get_running_loop().call_later(WARM_S, self._idle)
        return answer

    def close(self) -> None:
        """End the process now, or after the question that it answers."""
        self._is_closed = True
        self._idle()

    def _idle(self) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._process is not None:
            self._process.kill()
            self._process = None


class _Process:
    """One process, with the socket through which it is asked.

    Raises:
        OSError: if it can't be started.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._asking, asked = socket.socketpair()
        self._asking.setblocking(False)
        with asked:
            # not by the event loop: this way, the relay's memory is not copied for a fork. What the process says before
            # its first question is in the relay's log
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "relay.cli.audit.answering"],
                stdin=asked.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd=Path(__file__).parent,  # no settings are here
                # no session of its own: Linux shares out the CPU between sessions first (autogroups), and a process is
                # idle beside others of its session only
                process_group=0,
            )
        leave_cpu_to_others(self._process.pid)

    @property
    def is_dead(self) -> bool:
        return self._process.poll() is not None

    async def answer(self, command: Sequence[str]) -> Answer:
        rows, writing = socket.socketpair()
        with rows:
            rows.setblocking(False)
            with writing:
                socket.send_fds(self._asking, [msgspec.json.encode(command)], [writing.fileno()])
            answer = await _read(rows, MAX_ANSWER)
        code, notes = msgspec.json.decode(await self._said(), type=tuple[int, str])
        return Answer(code=code, rows=answer, notes=notes)

    async def _said(self) -> bytes:
        """Return the line that follows an answer."""
        said = b""
        while not said.endswith(b"\n"):
            block = await asyncio.get_running_loop().sock_recv(self._asking, _BLOCK)
            if not block:
                raise OSError(errno.ECONNRESET, "it ended without an answer")
            said += block
        return said

    def kill(self) -> None:
        """Kill it, with the process of a question."""
        self._asking.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        asyncio.get_running_loop().run_in_executor(None, self._process.wait)


def leave_cpu_to_others(pid: int) -> None:
    """Let a process of this session have only the CPU that nothing else wants."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
        if sys.platform == "linux":
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


async def _read(stream: socket.socket, most: int) -> bytes:
    found = bytearray()
    while block := await asyncio.get_running_loop().sock_recv(stream, _BLOCK):
        found += block
        if len(found) > most:
            raise TooLongError
    return bytes(found)
