"""The supervisor of workers, with workers that start in milliseconds: signals, ends, successors, sockets."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.server import supervisor
from relay.server.announcement import Announcement
from relay.server.cores import usable_cores
from relay.server.supervisor import Plan
from tests.support import small_worker

WITHIN_S = 30.0


class Supervised:
    """A supervisor with two small workers."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.sockets = Path(tempfile.mkdtemp())  # a test's own folder has too long a path for sockets
        self.environment = environment or {}
        self.process = self.start("127.0.0.1:0")
        assert self.process.stdout is not None
        shown = self.process.stdout.readline()
        self.port = int(shown.split()[3]) if shown else 0

    def start(self, address: str) -> subprocess.Popen[str]:
        """Start a supervisor, as the program that `relay serve` becomes."""
        plan = Plan(
            command=[sys.executable, "-S", small_worker.__file__],
            addresses={"http": address, "internal": "127.0.0.1:0"},
            workers=2,
            log_level="info",
            log_format="json",
            announcement=Announcement(url="", stream_url="", is_error=False),
        )
        return subprocess.Popen(
            [sys.executable, "-m", "relay.server.supervisor", str(plan)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "TMPDIR": str(self.sockets),
                **self.environment,
            },
        )

    @property
    def said(self) -> list[tuple[int, str]]:
        """What the workers said."""
        lines = (self.folder / "said").read_text().splitlines()
        return [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]

    def ready(self) -> list[int]:
        """Return the workers that became ready, in this order."""
        return [pid for pid, text in self.said if text == "ready"]

    def ask(self) -> int:
        """Connect, and return the process id of the worker that answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S) as connection:
            return int(connection.recv(100))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)  # other processes make it true

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal. Return the exit code and the log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=WITHIN_S)
        return self.process.returncode, log


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """A running supervisor."""
    found = Supervised(tmp_path)
    yield found
    if found.process.poll() is None:
        found.end(signal.SIGTERM)
    shutil.rmtree(found.sockets)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(supervised: Supervised, number: signal.Signals) -> None:
    """Each worker gets each signal once, and the supervisor ends with 0 after them.

    No worker gets a signal of the terminal itself, as it is in a group of its own. It is in the supervisor's session.
    """
    first = supervised.ready()
    assert [(os.getsid(pid), os.getpgid(pid)) for pid in first] == [(os.getsid(0), pid) for pid in first]
    supervised.process.send_signal(signal.SIGHUP)
    supervised.until(lambda: len(supervised.said) == 4)
    assert supervised.end(number)[0] == 0
    assert sorted(supervised.said[2:4]) == sorted((pid, "SIGHUP") for pid in first)
    assert sorted(supervised.said[4:]) == sorted((pid, number.name) for pid in first)
    assert not list(supervised.sockets.iterdir()), "its folder is removed"


def test_a_killed_worker_is_started_again_and_its_connections_wait(supervised: Supervised) -> None:
    """The socket stays open: what connects to it in between is answered by the next one."""
    killed = supervised.ask()
    os.kill(killed, signal.SIGKILL)
    supervised.until(lambda: not Path(f"/proc/{killed}").exists())
    answers = {supervised.ask() for _ in range(30)}
    assert killed not in answers
    supervised.until(lambda: len(supervised.ready()) == 3)
    supervised.until(lambda: supervised.ask() == supervised.ready()[-1])
    code, log = supervised.end(signal.SIGTERM)
    assert code == 0
    assert f'"pid": {killed}, "code": -9' in log


def test_systemd_is_told_of_all_workers_and_a_silent_one_is_killed(tmp_path: Path) -> None:
    """READY when all accept connections, signs of life, STOPPING. These workers give no sign of life themselves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(WITHIN_S)
        systemd.bind(str(tmp_path / "notify"))
        wanted = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        supervised = Supervised(tmp_path, wanted)
        told = {systemd.recv(100).decode()}
        while "READY=1" not in told:
            told.add(systemd.recv(100).decode())
        assert told <= {"READY=1", "WATCHDOG=1"}
        assert len(supervised.ready()) >= 2
        supervised.until(lambda: len(supervised.ready()) > 3)
        code, log = supervised.end(signal.SIGTERM)
        assert code == 0
        assert "a worker gives no sign of life; it is killed" in log
        while (line := systemd.recv(100).decode()) != "STOPPING=1":
            assert line == "WATCHDOG=1"
    shutil.rmtree(supervised.sockets)


def test_successors_accept_before_the_others_stop(supervised: Supervised) -> None:
    """Two new processes are ready first; then the two old ones are told; then only the new ones answer."""
    old = supervised.ready()
    supervised.process.send_signal(signal.SIGUSR2)
    supervised.until(lambda: len(supervised.said) == 6)
    assert sorted(supervised.said[4:]) == sorted((pid, "SIGUSR2") for pid in old)
    new = supervised.ready()[2:]
    assert {supervised.ask() for _ in range(20)} <= set(new)
    assert supervised.end(signal.SIGTERM)[0] == 0


def test_successors_that_do_not_start_change_nothing(supervised: Supervised) -> None:
    """A release or settings that are broken leave the running workers alone."""
    (supervised.folder / "broken").touch()
    supervised.process.send_signal(signal.SIGUSR2)
    assert supervised.process.stderr is not None
    while "a successor did not start" not in (line := supervised.process.stderr.readline()):
        assert line
    assert '"code": 3' in line
    assert {supervised.ask() for _ in range(20)} <= set(supervised.ready())
    assert len(supervised.said) == 2


def test_the_supervisor_ends_after_its_workers(supervised: Supervised) -> None:
    """While they drain it passes signals on. Else systemd, or the end of a container, would kill them."""
    lingers = supervised.folder / "lingers"
    lingers.touch()
    supervised.process.send_signal(signal.SIGTERM)
    supervised.until(lambda: len(supervised.said) == 4)
    supervised.process.send_signal(signal.SIGHUP)
    supervised.until(lambda: len(supervised.said) == 6)
    lingers.unlink()
    assert supervised.process.wait(WITHIN_S) == 0
    assert [text for _, text in supervised.said[2:]] == ["SIGTERM"] * 2 + ["SIGHUP"] * 2
    supervised.process.communicate()


@pytest.mark.parametrize(("file", "said"), [("slow", "starting"), ("drains", "SIGUSR2")])
def test_a_stop_during_a_replacement_ends_all(supervised: Supervised, file: str, said: str) -> None:
    """While a successor starts, and while those before it drain: each process gets the signal, and none is left."""
    (supervised.folder / file).touch()
    supervised.process.send_signal(signal.SIGUSR2)
    supervised.until(lambda: said in [text for _, text in supervised.said])
    assert supervised.end(signal.SIGTERM)[0] == 0
    ended = [pid for pid, text in supervised.said if text == "SIGTERM"]
    assert sorted(ended) == sorted({pid for pid, _ in supervised.said})
    assert not [pid for pid in ended if Path(f"/proc/{pid}").exists()]


def test_workers_learn_that_their_supervisor_was_killed(supervised: Supervised) -> None:
    """Their standard input ends. Otherwise they would keep the ports."""
    pids = supervised.ready()
    supervised.end(signal.SIGKILL)
    supervised.until(lambda: sorted(supervised.said[2:]) == sorted((pid, "alone") for pid in pids))


def test_a_first_worker_that_does_not_start_ends_the_supervisor(tmp_path: Path) -> None:
    """With its exit code: it has said what is wrong."""
    (tmp_path / "broken").touch()
    found = Supervised(tmp_path)
    assert found.process.wait(WITHIN_S) == 3
    found.process.communicate()
    found.sockets.rmdir()


def test_a_port_in_use_is_an_error(supervised: Supervised) -> None:
    """Although several sockets may have the port: a second supervisor would take half of the connections."""
    other = supervised.start(f"127.0.0.1:{supervised.port}")
    _, log = other.communicate(timeout=WITHIN_S)
    assert other.returncode == 2
    assert log == f"listen.http: can't listen on 127.0.0.1:{supervised.port}: Address already in use.\n"


def test_a_folder_that_sockets_can_not_have_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path of the system's limit, or none to write to, is told in a sentence that names TMPDIR."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    for folder, text in ((long, "too long a path"), (tmp_path / "missing", "needs a folder for its sockets")):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with pytest.raises(ConfigurationError, match=f"TMPDIR.*{text}|{text}(.|\n)*TMPDIR"):
            supervisor._folder_of_sockets()
    assert not list(long.iterdir())


def test_the_supervisor_imports_neither_server_nor_settings() -> None:
    """It stays small: one more process on each machine, which does nothing."""
    program = """
import sys, relay.server.supervisor
heavy = {"pydantic", "typer", "uvicorn", "uvloop", "websockets", "starlette", "redis", "jwt", "anyio", "duckdb"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=WITHIN_S)


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("", None), ("x y", None)]
)
def test_a_quota_bounds_the_cores(tmp_path: Path, text: str, cores: float | None) -> None:
    """A container sees all cores of its machine, and may use fewer."""
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    without = usable_cores(tmp_path / "missing")
    assert usable_cores(quota) == (without if cores is None else min(cores, without))
