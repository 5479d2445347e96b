"""Processes that run a module of the relay without importing it: one process has the imports, and forks for each start.

The suite starts hundreds of relays, and nine tenths of the CPU of a start are imports. The fork runs the same module as
`python -m MODULE` does, with an environment, arguments, a working directory and outputs of its own.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

EVEN_PRIORITY = os.pathsep.join(
    filter(None, [str(Path(__file__).with_name("even_priority")), os.environ.get("PYTHONPATH")])
)
"""The path of Python modules with which a relay answers questions to its audit log while tests take all CPU."""
_IMPORTS = (
    *("relay.cli.serve", "relay.server.run", "relay.server.worker", "relay.server.announcement"),
    *("relay.settings.load", "relay.demo.backend"),
)
_NUMBER = 4
"""Bytes of a process id or an exit code in the pipe that tells them."""
_MOST = 1 << 17
"""Bytes of a request: more than any environment of a test."""


class Forked:
    """A forked process, with the parts of `subprocess.Popen` that tests use."""

    def __init__(self, stdout: IO[str], told: int) -> None:
        self.stdout = stdout
        self.returncode: int | None = None
        self._told = told
        self.pid = self._number()

    def poll(self) -> int | None:
        """Return the exit code if the process has ended, else None."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code. That of a signal is its number, negative.

        Raises:
            subprocess.TimeoutExpired: if the process runs longer than `timeout` seconds.
        """
        if (code := self._ended(timeout)) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its parent has not told yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = self._number()
            os.close(self._told)
        return self.returncode

    def _number(self) -> int:
        return int.from_bytes(os.read(self._told, _NUMBER), "big", signed=True)


def start(
    module: str, *arguments: str, environment: Mapping[str, str], stderr: IO[str] | None = None
) -> Forked | subprocess.Popen[str]:
    """Start a process that runs `module`. Its standard output is a pipe.

    It is a fork if only variables of the relay differ from those of this process. Python or a library may read other
    variables as it starts, so a process that has them is started as usual.
    """
    if sys.platform != "linux" or _lasting(environment) != _lasting(
        os.environ | {"PYTHONPATH": EVEN_PRIORITY}
    ):
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )
    request = {
        "module": module,
        "arguments": arguments,
        "environment": dict(environment),
        "folder": str(Path.cwd()),
    }
    stdout, own_stdout = os.pipe()
    told, own_told = os.pipe()
    with _lock:
        parent = _parent(json.dumps(_lasting(environment), sort_keys=True))
    own = [own_stdout, stderr.fileno() if stderr else 2, own_told]
    socket.send_fds(parent, [json.dumps(request).encode()], own)
    os.close(own_stdout)
    os.close(own_told)
    return Forked(os.fdopen(stdout), told)


_lock = threading.Lock()


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if not name.startswith(("RELAY_", "PYTEST_"))}


@functools.cache
def _parent(environment: str) -> socket.socket:
    """Start the process with the imports."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=json.loads(environment),
        )

    def end() -> None:
        ours.shutdown(socket.SHUT_RDWR)  # a process that a test forked may have it too
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- in the process with the imports --------------------------------------------------------------


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each request. Only forks return from here, each with its request."""
    while True:
        message, received, _, _ = socket.recv_fds(connection, _MOST, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            sys.exit()
        if os.fork() == 0:
            connection.close()
            return _watched(json.loads(message), *received)
        for each in received:
            os.close(each)


def _watched(request: dict[str, Any], stdout: int, stderr: int, told: int) -> dict[str, Any]:
    """Fork again. This process waits for that one and tells its end, as only a parent can."""
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for each in (stdout, stderr, told):
            os.close(each)
        return request
    os.dup2(0, 2)  # who reads the outputs waits until nobody can write them
    os.close(stdout)
    os.close(stderr)
    os.write(told, pid.to_bytes(_NUMBER, "big", signed=True))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(told, os.waitstatus_to_exitcode(status).to_bytes(_NUMBER, "big", signed=True))
    os._exit(0)


def _main() -> None:
    gc.disable()
    for name in _IMPORTS:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the forks
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [request["module"], *request["arguments"]]
    sys.modules.pop(request["module"], None)
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
