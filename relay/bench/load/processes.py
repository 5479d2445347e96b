"""Processes that a benchmark starts, talks to by lines, and never leaves behind.

Whoever measures a server must not be stopped by it: every read has a time limit and ends with a sentence that
quotes the process's own last words. Each process is in a session of its own, because Ctrl-C goes to a whole
foreground group and would otherwise make four programs talk at once; in exchange the kernel is asked to kill
it should this process die without its clean-up.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil

from relay.bench import BenchError
from relay.core.errors import ConfigurationError

STOP_WITHIN_S = 5.0
"""A relay stops in under two seconds; what has not done so after five is killed."""

_libc = ctypes.CDLL(None)  # loaded here, not between fork and exec
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A process with lines to and from it. Its standard error goes to a file; `quote` returns the end of it."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", log: Path, *, ending: signal.Signals
    ) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._ending = ending
        self._heard = b""

    @classmethod
    @contextlib.contextmanager
    def run(
        cls, name: str, arguments: Sequence[str], log: Path, *, ending: signal.Signals = signal.SIGTERM
    ) -> Iterator[Self]:
        """Run `python -m …` for the time of a block. `ending` is the signal that stops it.

        Settings of the caller's own relay, RELAY_* variables, are kept from it.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # safe: this process has no other thread
            )
        child = cls(name, process, log, ending=ending)
        try:
            yield child
        finally:
            child._stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def output(self) -> int:
        """The file descriptor of what it says."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def say(self, message: object) -> None:
        """Send one object as a line of JSON.

        Raises:
            BenchError: if the process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def hear(self, *, within_s: float) -> dict[str, Any]:
        """Read one JSON object; one with `error` is raised.

        Raises:
            BenchError: if that is what it says, if it says nothing in time, or has ended.
        """
        message: dict[str, Any] = json.loads(self.read_line(within_s=within_s))
        if "error" in message:
            raise BenchError(message["error"])
        return message

    def read_line(self, *, within_s: float) -> str:
        """Read one line.

        Raises:
            BenchError: if none comes in time, or the process has ended.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + within_s
        while b"\n" not in self._heard:
            if not self.has_spoken(within_s=deadline - time.monotonic()):
                raise BenchError(f"{self.name} did not answer for {within_s:.0f} s. {self.quote()}".strip())
            chunk = os.read(self._process.stdout.fileno(), 65_536)
            if not chunk:
                raise self._ended()
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode("utf-8", "replace")

    def has_spoken(self, *, within_s: float = 0.0) -> bool:
        """Tell whether there is something to read, its end included."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        return b"\n" in self._heard or bool(poll.poll(max(0.0, within_s) * 1000))

    def quote(self) -> str:
        """Return the last line that the process wrote to standard error, as a sentence, or ""."""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return f"Its last words: {lines[-1][:300]}" if lines else ""

    def _ended(self) -> BenchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return BenchError(
            f"{self.name} ended by itself (code {self._process.returncode}). {self.quote()}".strip()
        )

    def _stop(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            if process.poll() is None:
                process.send_signal(self._ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S)
        finally:  # also when Ctrl-C comes a second time
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds, user and system, of a process and all its threads. Counted in steps of 10 ms.

    Raises:
        BenchError: if there is no such process, or it may not be looked at.
    """
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        raise BenchError(
            f"The CPU of process {pid} can't be read: it has ended, or is not of this machine."
        ) from None
    return float(times.user + times.system)


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process has in use (RSS).

    Raises:
        BenchError: as `cpu_of`.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        raise BenchError(
            f"The memory of process {pid} can't be read: it has ended, or is not of this machine."
        ) from None


def holds_connection(pid: int, port: int) -> bool:
    """Tell whether a process has a TCP connection whose other end has this port.

    Raises:
        BenchError: as `cpu_of`.
    """
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        raise BenchError(
            f"The connections of process {pid} can't be read: it has ended, or is not of this machine."
        ) from None
    return any(one.raddr and one.raddr.port == port for one in connections)


def wait_for_words(children: "Sequence[Child]", *, within_s: float) -> None:
    """Wait until one of several processes has said something, or ended; or for so long."""
    poll = select.poll()
    for child in children:
        if child.has_spoken():
            return
        poll.register(child.output, select.POLLIN)
    poll.poll(max(0.0, within_s) * 1000)


def allow_open_files(count: int) -> None:
    """Raise this process's limit of open files, which its children inherit, so that `count` fit.

    Raises:
        ConfigurationError: if the system does not allow as many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    try:
        new_hard = hard if hard == resource.RLIM_INFINITY else max(hard, count)
        # beyond the hard limit only root may go
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, new_hard))
    except (ValueError, OSError):
        raise ConfigurationError(
            f"{count} open files are needed in one process, and the limit is {hard}: "
            f"raise it with `ulimit -Hn {count}` as root, or measure with fewer connections."
        ) from None
