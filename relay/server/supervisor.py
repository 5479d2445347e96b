"""The supervisor of `relay serve --workers`: it starts processes, keeps their sockets, and passes signals on.

A slot is one SO_REUSEPORT socket for each listener and the process that accepts from it. With one socket for all, one
process would accept most of the connections. The supervisor keeps the sockets open for its whole life: a listener that
is closed resets the connections that wait in its accept queue. It accepts nothing itself, and imports little.

Workers speak the protocol of `relay.server.notify` to it. SIGUSR2 starts a successor for each worker. When all of them
accept connections, from the same sockets, the workers before them stop accepting and drain. If one successor does not
start, the others end, and nothing has changed.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from relay.core.errors import ConfigurationError
from relay.net.sockets import bind, bound_port
from relay.server import logs
from relay.server.announcement import Announcement
from relay.server.notify import EXTEND, READY, STOPPING, WATCHDOG, extension_s, notify, watchdog_s
from relay.server.worker import Worker

STARTED_WITHIN_S = 60.0
"""Seconds in which a worker accepts connections. A busy machine needs some; after that it is killed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Seconds before a worker that ended is started again; doubled each time. New connections of its slot wait for it."""
STEADY_AFTER_S = 10.0
"""Seconds after which the end of a worker does not count as one of a row."""
ENDED_WITHIN_S = 30.0
"""Seconds after which a replaced worker is killed, beyond those that it asks for to drain."""

MAX_FOLDER_BYTES = 88
"""A socket's path may have 107 bytes (Linux) or 103 (macOS); the longest name in the folder takes 15 at most."""

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is supervised. `command` starts a worker, without its option `--worker`.

    `addresses` has the "host:port" of each listener. The announcement is shown when all workers accept connections.
    """

    command: Sequence[str]
    addresses: Mapping[str, str]
    workers: int
    log_level: str
    log_format: Literal["auto", "text", "json"]
    announcement: Announcement

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """Read the argument of this program. It comes from `relay serve`, and so has the right form."""
        return msgspec.json.decode(text, type=cls)

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()


def supervise(plan: Plan) -> int:
    """Run workers until SIGINT or SIGTERM. Return the exit code.

    Raises:
        ConfigurationError: if an address can't be listened on.
    """
    with ExitStack() as stack:
        slots: list[_Slot] = []
        addresses = dict(plan.addresses)
        for name, address in addresses.items():
            bind(
                address, setting=f"listen.{name}"
            ).close()  # with SO_REUSEPORT, a port in use would be no error
        for _ in range(plan.workers):
            sockets = {}
            for name, address in addresses.items():
                sockets[name] = stack.enter_context(bind(address, setting=f"listen.{name}", is_shared=True))
                host = address.rpartition(":")[0]
                addresses[name] = f"{host}:{bound_port(sockets[name])}"  # of port 0, the same for all
            slots.append(_Slot(len(slots) + 1, sockets))
        folder = _folder_of_sockets()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return asyncio.run(_Supervisor(plan, slots, folder).run())


def _folder_of_sockets() -> Path:
    """Make the folder that only this user can open, for the sockets of the workers.

    Raises:
        ConfigurationError: if there is no place for it, or only one whose path is too long for a socket.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="relay-"))
    except OSError as error:
        raise ConfigurationError(
            f"--workers needs a folder for its sockets ({error.strerror}). Set TMPDIR to a folder that this process "
            "may write to; in a container with a read-only root, mount a tmpfs at /tmp."
        ) from None
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        folder.rmdir()
        raise ConfigurationError(
            f"TMPDIR: {folder.parent} is too long a path for sockets, which the system allows about 100 bytes. Set it "
            "to a shorter one, like /tmp."
        )
    return folder


def _cancel(timer: asyncio.TimerHandle, _ended: object) -> None:
    timer.cancel()


class _Child:
    """One process of a worker."""

    def __init__(self, process: asyncio.subprocess.Process, notices: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.began = self.heard = loop.time()
        self.ends_by = 0.0
        self.is_ready = asyncio.Event()
        self._ending = asyncio.create_task(self._wait(notices))
        loop.add_reader(notices, self._read, notices)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._ending.done()

    async def ended(self) -> int:
        """Wait for its end, and return its exit code. If one caller is cancelled, the others wait on."""
        return await asyncio.shield(self._ending)

    def on_end(self, call: Callable[[object], object]) -> None:
        """Call this when it has ended."""
        self._ending.add_done_callback(call)

    async def started(self) -> bool:
        """Wait until it accepts connections. False: it ended, or was killed because it took too long."""
        ready = asyncio.create_task(self.is_ready.wait())
        await asyncio.wait(
            (ready, self._ending), timeout=STARTED_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        if not self.is_ready.is_set() and not self.has_ended:
            log.error("a worker did not start in time; it is killed", pid=self.pid)
            self.send(signal.SIGKILL)
            await self.ended()
        return self.is_ready.is_set() and not self.has_ended

    def send(self, number: int) -> None:
        """Send a signal, if the process lives."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def _wait(self, notices: socket.socket) -> int:
        code = await self.process.wait()
        asyncio.get_running_loop().remove_reader(notices)
        notices.close()
        return code

    def _read(self, notices: socket.socket) -> None:
        with suppress(BlockingIOError):
            lines = notices.recv(4096).decode("ascii", "replace").splitlines()
            self.heard = asyncio.get_running_loop().time()
            if READY in lines:
                self.is_ready.set()
            if (asked_s := extension_s(lines)) is not None:
                self.ends_by = self.heard + asked_s + ENDED_WITHIN_S
                notify(f"{EXTEND}{round(asked_s * 1e6)}")  # systemd waits as long for all


@dataclass(slots=True, eq=False)
class _Slot:
    """The sockets of one worker, and the process that accepts from them."""

    number: int
    sockets: Mapping[str, socket.socket]
    child: _Child | None = None


class _Supervisor:
    def __init__(self, plan: Plan, slots: Sequence[_Slot], folder: Path) -> None:
        self._plan = plan
        self._slots = slots
        self._folder = folder
        self._children: set[_Child] = set()
        self._spawned = 0
        self._stop_signal = 0
        self._stopping = asyncio.Event()
        self._restart_asked = asyncio.Event()
        self._starting = asyncio.Lock()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
            loop.add_signal_handler(number, self._on_signal, number)
        # the first one alone: it makes what is missing, such as a key, and a mistake in the settings is told once
        first, *others = self._slots
        first.child = await self._spawn(first)
        if not await first.child.started():
            return self._exit_code(await first.child.ended())
        tasks = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._replace_on_request())]
        tasks += [asyncio.create_task(self._announce(others))]
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        codes = [await child.ended() for child in list(self._children)]
        return next((self._exit_code(code) for code in codes if self._exit_code(code)), 0)

    def _exit_code(self, code: int) -> int:
        """Return the exit code for that of a worker. A worker that got the signal before it could handle it is fine."""
        return 0 if -code == self._stop_signal else 128 - code if code < 0 else code

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGUSR2:
            self._restart_asked.set()
            return
        if number != signal.SIGHUP:
            self._stop_signal = number
            if not self._stopping.is_set():
                notify(STOPPING)
            self._stopping.set()
        for child in self._children:
            child.send(number)

    async def _announce(self, others: Sequence[_Slot]) -> None:
        """Say once that all workers accept connections."""
        while not all(slot.child and slot.child.is_ready.is_set() for slot in others):  # noqa: ASYNC110  # two events
            await asyncio.sleep(0.02)
        ports = {name: bound_port(sock) for name, sock in self._slots[0].sockets.items()}
        self._plan.announcement.show(ports, f"   workers {self._plan.workers}")
        notify(READY)

    async def _keep(self, slot: _Slot) -> None:
        """Start the worker of a slot whenever there is none."""
        pause_s = 0.0
        while True:
            child = slot.child
            if child is None:
                await asyncio.sleep(pause_s)
                pause_s = min(max(pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                async with self._starting:
                    if slot.child is None:
                        child = await self._spawn(slot)
                        if await child.started():
                            slot.child = child
                            log.info("a worker was started", slot=slot.number, pid=child.pid)
                        else:
                            log.error("a worker did not start", slot=slot.number, code=await child.ended())
                continue
            code = await child.ended()
            if slot.child is child:  # it was not replaced
                slot.child = None
                lived_s = asyncio.get_running_loop().time() - child.began
                if lived_s > STEADY_AFTER_S:
                    pause_s = 0.0
                log.error(
                    "a worker ended; another one is started",
                    slot=slot.number,
                    pid=child.pid,
                    code=code,
                    lived_s=round(lived_s, 1),
                )

    async def _replace_on_request(self) -> None:
        while True:
            await self._restart_asked.wait()
            self._restart_asked.clear()
            async with self._starting:
                await self._replace_all()

    async def _replace_all(self) -> None:
        """Start a successor for each worker. Only when all accept connections, the workers before them drain."""
        successors: list[_Child] = []
        for slot in self._slots:
            child = await self._spawn(slot)
            if not await child.started():
                log.error("a successor did not start; the workers stay as they are", code=await child.ended())
                self._retire(successors)
                return
            successors.append(child)
        before = [slot.child for slot in self._slots if slot.child is not None]
        for slot, child in zip(self._slots, successors, strict=True):
            slot.child = child
        log.info("the workers are replaced", pids=[child.pid for child in successors])
        self._retire(before)

    def _retire(self, children: Sequence[_Child]) -> None:
        """Tell workers to stop accepting and to drain; kill those that don't end."""
        for child in children:
            child.send(signal.SIGUSR2)
            child.ends_by = asyncio.get_running_loop().time() + ENDED_WITHIN_S
            self._kill_late(child)

    def _kill_late(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < child.ends_by:
            timer = loop.call_at(child.ends_by, self._kill_late, child)
            child.on_end(partial(_cancel, timer))
        elif not child.has_ended:
            log.error("a replaced worker did not end in time; it is killed", pid=child.pid)
            child.send(signal.SIGKILL)

    async def _watch(self) -> None:
        """Kill workers that give no sign of life, and give systemd this process's own, if systemd wants one."""
        within_s = watchdog_s()
        while within_s is not None:
            now = asyncio.get_running_loop().time()
            for child in self._children:
                if child.is_ready.is_set() and now - child.heard > within_s:
                    log.error("a worker gives no sign of life; it is killed", pid=child.pid)
                    child.send(signal.SIGKILL)
            notify(WATCHDOG)
            await asyncio.sleep(within_s / 2)

    async def _spawn(self, slot: _Slot) -> _Child:
        """Start a process for a slot."""
        self._spawned += 1
        notices = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        path = self._folder / f"notify.{self._spawned}"
        notices.bind(str(path))
        descriptors = {name: sock.fileno() for name, sock in slot.sockets.items()}
        environment: dict[str, Any] = {**os.environ, "NOTIFY_SOCKET": str(path)}
        environment.pop("WATCHDOG_PID", None)  # it names this process
        worker = Worker(folder=str(self._folder), sockets=descriptors)
        process = await asyncio.create_subprocess_exec(
            *(*self._plan.command, "--worker", str(worker)),
            stdin=asyncio.subprocess.PIPE,  # it ends when this process does, however it does
            pass_fds=tuple(descriptors.values()),
            env=environment,
            # Ctrl-C comes to this process alone, which passes it on. No session of its own: a worker's process for
            # audit questions has idle CPU only beside others of its session
            process_group=0,
        )
        child = _Child(process, notices)
        self._children.add(child)
        child.on_end(partial(self._forget, child, path))
        if self._stopping.is_set():
            child.send(self._stop_signal)
        return child

    def _forget(self, child: _Child, notices: Path, _ended: object) -> None:
        self._children.discard(child)
        notices.unlink(missing_ok=True)


def main() -> None:
    """Run as the program that `relay serve --workers` becomes: the plan is its argument."""
    plan = Plan.parse(sys.argv[1])
    logs.configure(level=plan.log_level, format=plan.log_format)
    try:
        sys.exit(supervise(plan))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
