"""A Redis or Valkey of the benchmark's own, on a Unix socket in its folder: no port, no file of its data."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from relay.bench import BenchError
from relay.bench.load.processes import LOOK_S, STALL_S, Child
from relay.core.errors import ConfigurationError
from relay.engine.address import read_address

PROGRAMS = ("redis-server", "valkey-server")
MAX_SOCKET_BYTES = 100
"""The longest path of a Unix socket that every system has."""
NEW_LIFE_S = 3.0
"""A relay refuses tokens from before the first two seconds of an engine's life. A token knows only whole seconds."""


class EngineOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The order of `engine_path`: how many messages to publish, tokens to claim at once, channels to take over."""

    url: str
    pid: int
    messages: int
    claims: int
    resync: int


class EnginePath(msgspec.Struct, frozen=True, kw_only=True):
    """Its result: CPU of the node a message and a claim, CPU of the engine for its longest script, other times."""

    cpu_us_a_message: float
    cpu_us_a_claim: float
    claims_p99_ms: float | None
    resync_s: float
    script_ms: float


@dataclass(slots=True, kw_only=True)
class Engine:
    """A running engine. `url` is the setting `engine.url`."""

    url: str
    pid: int
    _born_at: float = 0.0

    def wait_for_life(self) -> None:
        """Wait until relays accept tokens, after the first one has begun the engine's life."""
        if not self._born_at:
            self._born_at = time.monotonic()
        time.sleep(max(0.0, self._born_at + NEW_LIFE_S - time.monotonic()))


def require_engine() -> str:
    """Return the program of an engine. Raises ConfigurationError with what to install."""
    import relay.engine.connection  # noqa: F401  # it says what to install if redis-py is missing

    if found := next(filter(None, map(shutil.which, PROGRAMS)), None):
        return found
    raise ConfigurationError(
        f"This benchmark starts an engine of its own, and there is no {' and no '.join(PROGRAMS)} on PATH: install "
        "one of them (apt install redis-server, or valkey-server)."
    )


@contextlib.contextmanager
def own_engine(folder: Path) -> Iterator[Engine]:
    """Run an engine until the block ends. Raises BenchError if it does not start."""
    folder.mkdir(exist_ok=True)
    log = folder / "engine.log"
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as short:
        path = Path(short) / "engine"
        if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
            raise BenchError(f"{path} is too long for a socket: set TMPDIR to a shorter path, like /tmp.")
        arguments = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", short]
        arguments += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", str(log)]
        with Child.run("The engine", folder, *arguments, program=(require_engine(),)) as child:
            deadline = time.monotonic() + STALL_S
            url = f"unix://{path}"
            while not _answers(url):
                if time.monotonic() > deadline or child.has_spoken(within_s=LOOK_S / 10):
                    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else [""]
                    raise BenchError(f"{child.name} did not start. {lines[-1]}".strip())
            yield Engine(url=url, pid=child.pid)


def _answers(url: str) -> bool:
    from relay.engine.connection import EngineError, open_connection
    from relay.engine.options import CONTROL

    async def ask() -> None:
        await (await open_connection(read_address(url), CONTROL)).close()

    try:
        asyncio.run(ask())
    except EngineError:
        return False
    return True
