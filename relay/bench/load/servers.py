"""The servers that are measured: a relay of our own, or the yardstick; and what publishes to them."""

import contextlib
import re
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import msgspec

from relay.bench.load import publisher, yardstick
from relay.bench.load.clients import Target
from relay.bench.load.engine_server import Engine
from relay.bench.load.processes import STALL_S, Child
from relay.bench.load.ticks import Ticks
from relay.keys.api_keys import new_bearer_key
from relay.settings.template import settings_text, write_folder

START_WITHIN_S = 60.0
SESSION_S = 3600

_SECTIONS = """\
[endpoints.trades]
path = "/ws/trades"
channels = ["trades.>"]
mode = "stream"
history = {{ messages = 0, seconds = 0 }}

[limits]
tokens_per_address = "1000000/minute"
unauthenticated_per_address = 100000
{limits}
[log]
level = "warning"

{sections}"""
"""Every limit that could refuse a connection under load is raised; what each connection costs is left as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRelay:
    """A relay that accepts connections.

    `target` is where to connect, without channels; `internal` is the http:// address that is published to. `pid` is
    the process whose CPU counts.
    """

    target: Target = field(repr=False)
    internal: str
    publish_key: str = field(repr=False)
    pid: int


@contextlib.contextmanager
def own_relay(
    folder: Path,
    *,
    sessions: int,
    program: str = "relay",
    limits: str = "",
    sections: str = "",
    engine: Engine | None = None,
    workers: int = 0,
) -> Iterator[RunningRelay]:
    """Run a relay in a new or empty folder until the block ends, with so many sessions that may connect.

    `program` is the module that is run, with the command line of `relay`; `limits` are further ones, and `sections` are
    further settings. With an `engine` there may be `workers`. Raises BenchError if it does not start.
    """
    folder.mkdir(exist_ok=True)
    if engine is not None:
        sections += f'[engine]\nurl = "{engine.url}"\n'
    secret = secrets.token_hex(32)
    publish_key, digest = new_bearer_key("bench")
    text = settings_text(
        session_secret=secret,
        # tokens name an address that does not exist: the ports are known only after the start
        public_url="https://bench.invalid",
        stream_url="wss://bench.invalid",
        grants={"bench": {"prices": ["prices.>"], "trades": ["trades.>"]}},
        publishers={"bench": (digest, ["prices.>", "trades.>"])},
        sections=_SECTIONS.format(limits=limits, sections=sections),
    )
    arguments = [program, "serve", "--config", str(write_folder(folder, text))]
    if workers:
        arguments += ["--workers", str(workers)]
    # SIGINT: the relay stops without a drain
    with Child.run("The relay", folder, *arguments, ending=signal.SIGINT) as child:
        deadline = time.monotonic() + START_WITHIN_S
        ports: dict[str, str] = {}
        while ports.keys() < {"public", "stream", "internal"}:
            line = child.read_line(within_s=deadline - time.monotonic())
            if found := re.match(r"(\w+) +\w+ port (\d+)", line):
                ports[found[1]] = found[2]
        target = Target(
            stream=f"ws://127.0.0.1:{ports['stream']}/ws/prices",
            issuer=f"http://127.0.0.1:{ports['public']}",
            sessions=[_session(secret, f"bench-{number}") for number in range(sessions)],
        )
        if engine is not None:
            engine.wait_for_life()
        internal = f"http://127.0.0.1:{ports['internal']}"
        yield RunningRelay(target=target, internal=internal, publish_key=publish_key, pid=child.pid)


def _session(secret: str, name: str) -> str:
    now = int(time.time())
    claims = {"sub": name, "roles": ["bench"], "sid": name, "token_use": "access"}
    return jwt.encode({**claims, "iat": now, "exp": now + SESSION_S}, secret, algorithm="HS256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that can be measured. `source` is the process that publishes, `pid` is the server's."""

    source: Child
    pid: int
    base: Target

    def target(self, channels: Sequence[str], *, endpoint: str = "", interval_ms: int = 0) -> Target:
        """Return where to connect. The yardstick has one endpoint, and its interval is its own."""
        if not self.base.issuer:
            return msgspec.structs.replace(self.base, channels=channels)
        stream = self.base.stream.replace("/ws/prices", f"/ws/{endpoint}") if endpoint else self.base.stream
        return msgspec.structs.replace(
            self.base, stream=stream, endpoint=endpoint, channels=channels, interval_ms=interval_ms
        )


@contextlib.contextmanager
def publishing_to(relay: RunningRelay, folder: Path, ticks: Ticks, *, sdk: bool = False) -> Iterator[Server]:
    """Run the program that publishes to a relay until the block ends."""
    order = publisher.Order(ticks=ticks, url=relay.internal, key=relay.publish_key, sdk=sdk)
    with Child.run("The publisher", folder, "relay.bench.load.publisher", order=order) as source:
        source.hear(within_s=STALL_S)
        yield Server(source=source, pid=relay.pid, base=relay.target)


@contextlib.contextmanager
def yardstick_server(
    folder: Path, ticks: Ticks, *, program: Sequence[str] = ("relay.bench.load.yardstick",), **order: Any
) -> Iterator[Server]:
    """Run the yardstick, which publishes by itself, until the block ends; `program` is its module with arguments."""
    to_do = yardstick.Order(ticks=ticks, **order)
    with Child.run("The yardstick", folder, *program, order=to_do) as child:
        port = child.hear(within_s=STALL_S)["port"]
        yield Server(source=child, pid=child.pid, base=Target(stream=f"ws://127.0.0.1:{port}/"))
