"""Processes of a benchmark: they answer in time or are named, and none outlives it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from relay.bench import BenchError
from relay.bench.load import processes
from relay.bench.load.processes import (
    Child,
    cpu_of,
    holds_connection,
    memory_of,
    wait_for_words,
)

TICKS = {"run": "0a1b2c3d", "channels": ["prices.BENCH"], "count": 1}
ORDER = {"ticks": TICKS}


def test_lines_go_both_ways(tmp_path: Path) -> None:
    """A process answers what is said to it, and ends with the block."""
    with Child.run("The yardstick", tmp_path, "relay.bench.load.yardstick") as child:
        child.say(ORDER)
        assert child.hear(within_s=30)["port"] > 0
        assert cpu_of(child.pid) > 0
    assert not psutil.pid_exists(child.pid)


def test_a_process_that_ends_is_quoted(tmp_path: Path) -> None:
    """What it wrote last to standard error is in the sentence."""
    with (
        Child.run("The part", tmp_path, "relay.there_is_no_such_module") as child,
        pytest.raises(
            BenchError, match=r"The part ended by itself \(code 1\). Its last words: .*no_such_module"
        ),
    ):
        child.read_line(within_s=30)


def test_a_process_that_says_nothing_is_named(tmp_path: Path) -> None:
    """Waiting for a line has a bound."""
    with (
        Child.run("The yardstick", tmp_path, "relay.bench.load.yardstick") as child,
        pytest.raises(BenchError, match="The yardstick did not answer for 0 s"),
    ):
        child.read_line(within_s=0.05)


def test_what_a_process_reports_as_an_error_is_raised(tmp_path: Path) -> None:
    """The load's own sentence reaches the caller: here, that nothing listens where it should connect."""
    group = {"target": {"stream": "ws://127.0.0.1:1/"}, "connections": 1}
    with Child.run("The load generator", tmp_path, "relay.bench.load.subscribers") as child:
        child.say({"groups": [group], "ticks": TICKS, "stall_s": 1.0})
        with pytest.raises(BenchError, match=r"ws://127\.0\.0\.1:1/ can't be reached: Connection refused"):
            child.hear(within_s=30)


def test_a_process_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs does not hang the benchmark."""
    monkeypatch.setattr(processes, "STOP_WITHIN_S", 0.05)
    with Child.run("The yardstick", tmp_path, "relay.bench.load.yardstick") as child:
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)  # until it has stopped
    assert not psutil.pid_exists(child.pid)


def test_a_killed_benchmark_takes_its_processes_along(tmp_path: Path) -> None:
    """After kill -9, which allows no clean-up, no server is left listening."""
    program = (
        "import sys, pathlib\n"
        "from relay.bench.load.processes import Child\n"
        "with Child.run('x', pathlib.Path(sys.argv[1]), 'http.server', '0', '--bind', '127.0.0.1') as child:\n"
        "    child.read_line(within_s=30)\n"  # it listens: nothing but a signal will end it now
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},  # http.server does not flush the line that is waited for
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        child.wait(10)


def test_a_process_that_is_gone_is_a_sentence() -> None:
    """What is not there can't be measured, and the sentence says which."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    with pytest.raises(BenchError, match=f"The CPU of process {gone.pid} can't be read"):
        cpu_of(gone.pid)
    with pytest.raises(BenchError, match=f"The memory of process {gone.pid} can't be read"):
        memory_of(gone.pid)
    with pytest.raises(BenchError, match=f"The connections of process {gone.pid} can't be read"):
        holds_connection(gone.pid, 1)


def test_a_connection_is_held_until_it_is_closed() -> None:
    """Which of its connections a process has let go is seen from outside, by the port of the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours:
            port = ours.getsockname()[1]
            assert holds_connection(os.getpid(), port)
            theirs.close()
            assert not holds_connection(os.getpid(), port)
    assert memory_of(os.getpid()) > 1_000_000


def test_the_first_of_several_processes_is_heard(tmp_path: Path) -> None:
    """Waiting for several processes ends with the first word of one of them, or when the time is up."""
    with (
        Child.run("The first", tmp_path, "relay.bench.load.yardstick") as first,
        Child.run("The second", tmp_path, "relay.bench.load.yardstick") as second,
    ):
        wait_for_words([first, second], within_s=0.0)
        assert not first.has_spoken()
        second.say(ORDER)
        wait_for_words([first, second], within_s=30.0)
        assert second.has_spoken()
        second.hear(within_s=30)
        assert not first.has_spoken()
