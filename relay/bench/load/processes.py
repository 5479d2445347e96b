"""Processes that a benchmark starts and asks, and what they use of CPU and memory. None outlives the benchmark.

Every read has a time limit, and its error quotes the last line that the process wrote to standard error. Each process
is in a session of its own: Ctrl-C would make four programs print at once. The kernel kills it if this one dies.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from relay.bench import BenchError
from relay.core.errors import ConfigurationError

if TYPE_CHECKING:
    import psutil

Result = TypeVar("Result")

STALL_S = 10.0
"""A run is given up when nothing at all happens for so long."""
LOOK_S = 0.25
"""The longest wait before the next look at the clock."""
STOP_WITHIN_S = 5.0
"""A relay stops in under two seconds. A process that needs more than five is killed."""

_libc = ctypes.CDLL(None)  # loaded here, not between fork and exec
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A process that exchanges lines with this one."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._heard = b""

    @classmethod
    @contextlib.contextmanager
    def run(
        cls,
        name: str,
        folder: Path,
        *arguments: str,
        order: object = None,
        ending: int = signal.SIGTERM,
        program: Sequence[str] = (sys.executable, "-m"),
    ) -> Iterator[Self]:
        """Run `python -m …` until the block ends, and send it an order; `ending` is the signal that stops it.

        Its standard error goes to a file in `folder`. It does not get RELAY_* variables, which are settings of the
        caller's own relay.
        """
        log = folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [*program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # safe: this process has no other thread
            )
        child = cls(name, process, log)
        try:
            if order is not None:
                child.say(order)
            yield child
        finally:
            child._stop(ending)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def fileno(self) -> int:
        """Return the file descriptor of its output."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def say(self, message: object) -> None:
        """Send one object as a line of JSON. Raises BenchError if the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def hear(self, *, within_s: float) -> dict[str, Any]:
        """Read one JSON object. Raises BenchError if the object has `error`, if none comes in time, or if the process
        has ended.
        """
        message: dict[str, Any] = json.loads(self.read_line(within_s=within_s))
        if "error" in message:
            raise BenchError(message["error"])
        return message

    def result(
        self,
        kind: type[Result],
        *,
        within_s: float,
        show: Callable[[int], None],
        wait: Callable[[], object] | None = None,
    ) -> Result:
        """Wait for the result of an order, and pass the progress before it to `show`.

        `wait` waits a little while the process says nothing; by default for the process alone. Raises BenchError as
        `hear`, or if there is no result in time.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if not self.has_spoken():
                wait_for_words([self], within_s=LOOK_S) if wait is None else wait()
                continue
            message = self.hear(within_s=STALL_S)
            if "result" in message:
                return msgspec.convert(message["result"], kind)
            show(message["progress"])
        raise BenchError(f"{self.name} had no result after {within_s:.0f} s.")

    def read_line(self, *, within_s: float) -> str:
        """Read one line. Raises BenchError if none comes in time, or the process has ended."""
        deadline = time.monotonic() + within_s
        while b"\n" not in self._heard:
            if not self.has_spoken(within_s=deadline - time.monotonic()):
                raise self._failed(f"did not answer for {within_s:.0f} s")
            chunk = os.read(self.fileno(), 65_536)
            if not chunk:
                raise self._ended()
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode("utf-8", "replace")

    def has_spoken(self, *, within_s: float = 0.0) -> bool:
        """Tell whether there is something to read, or the process has ended."""
        return b"\n" in self._heard or bool(select.select([self], [], [], max(0.0, within_s))[0])

    def _ended(self) -> BenchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return self._failed(f"ended by itself (code {self._process.returncode})")

    def _failed(self, what: str) -> BenchError:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        quoted = f" Its last words: {lines[-1][:300]}" if lines else ""
        return BenchError(f"{self.name} {what}.{quoted}")

    def _stop(self, ending: int) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            if process.poll() is None:
                process.send_signal(ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S)
        finally:  # also when Ctrl-C comes a second time
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


def wait_for_words(children: Sequence[Child], *, within_s: float) -> None:
    """Wait until one of several processes has said something or has ended, at most so long."""
    if not any(child.has_spoken() for child in children):
        select.select(children, [], [], max(0.0, within_s))


def require_psutil() -> None:
    """Check that psutil is there, which is an extra of the package. Raises ConfigurationError if it is not; with what
    to install.
    """
    if importlib.util.find_spec("psutil") is None:
        raise ConfigurationError(
            "Benchmarks read the CPU and the memory of processes with psutil, which is not installed: "
            "pip install 'scoped-relay[bench]'."
        )


def cpu_of(pid: int) -> float:
    """Return the CPU seconds, user and system, of a process with all its threads and its workers, counted in steps of
    10 ms. Raises BenchError if there is no such process, or it belongs to another user.
    """
    times = _ask(pid, "CPU", lambda process: process.cpu_times())
    return float(sum(one.user + one.system for one in times))


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process and its workers have in use (RSS); raises what `cpu_of` raises."""
    return sum(_ask(pid, "memory", lambda process: int(process.memory_info().rss)))


def holds_connection(pid: int, port: int) -> bool:
    """Tell whether a process has a TCP connection whose other end has this port; raises what `cpu_of` raises."""
    found = _ask(pid, "connections", lambda process: process.net_connections("tcp"))
    return any(one.raddr and one.raddr.port == port for connections in found for one in connections)


def _ask(pid: int, what: str, read: "Callable[[psutil.Process], Result]") -> list[Result]:
    """Ask a process and its workers."""
    import psutil

    try:
        process = psutil.Process(pid)
        return [read(one) for one in (process, *process.children())]
    except psutil.Error:
        raise BenchError(
            f"The {what} of process {pid} can't be read: it has ended, or is not of this machine."
        ) from None
