"""The relay that is measured: one of our own, started as a user would, or one that runs already."""

import contextlib
import re
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jwt

from relay.bench.load.processes import Child
from relay.bench.load.targets import Target
from relay.keys.api_keys import new_bearer_key
from relay.keys.files import create_signing_key

START_WITHIN_S = 30.0
SESSION_S = 3600

_SETTINGS = """\
[public]
url = "https://bench.invalid"
stream_url = "wss://bench.invalid"

[listen]
http = "127.0.0.1:0"
stream = "127.0.0.1:0"
internal = "127.0.0.1:0"

[session]
ref_key = "{ref_key}"
signed = {{ algorithm = "HS256", secret = "{secret}", require = {{ token_use = "access" }} }}

[endpoints.prices]
path = "/ws/prices"
channels = ["prices.>"]

[endpoints.trades]
path = "/ws/trades"
channels = ["trades.>"]
mode = "stream"
history = {{ messages = 0, seconds = 0 }}

[grants]
bench.prices = ["prices.>"]
bench.trades = ["trades.>"]

[publishers.bench]
secret_sha256 = ["{publisher_digest}"]
channels = ["prices.>", "trades.>"]

[limits]
tokens_per_address = "1000000/minute"
unauthenticated_per_address = 100000

[log]
level = "warning"
"""
"""Everything a limit could refuse under load is raised; what each connection costs is left as it is. Tokens name
an address that nobody has: the ports are free ones, known only when the relay has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRelay:
    """A relay that accepts connections.

    `issuer` and `internal` are http:// addresses; `stream` is a ws:// one with its path, "" for what the
    issuer names. `sessions` are session tokens; `pid` is the process whose CPU counts, None if it is unknown.
    """

    issuer: str
    stream: str
    internal: str
    sessions: Sequence[str] = field(repr=False)
    publish_key: str = field(repr=False)
    pid: int | None = None

    def target(self, channels: Sequence[str], *, endpoint: str = "", interval_ms: int = 0) -> Target:
        """Return where the load connects. An `endpoint` can be named where the relay is one of our own."""
        return Target(
            stream=self.stream.replace("/ws/prices", f"/ws/{endpoint}") if endpoint else self.stream,
            issuer=self.issuer,
            endpoint=endpoint,
            sessions=self.sessions,
            channels=channels,
            interval_ms=interval_ms,
        )


@contextlib.contextmanager
def own_relay(folder: Path, *, sessions: int, program: str = "relay") -> Iterator[RunningRelay]:
    """Start a relay in an empty folder, with `sessions` people who may connect, for the time of a block.

    `program` is the module that is run, with the command line of `relay`.

    Raises:
        BenchError: if it does not start.
    """
    secret = secrets.token_hex(32)
    publish_key, digest = new_bearer_key("bench")
    keys = folder / "keys"
    create_signing_key(keys)
    settings = folder / "relay.toml"
    with settings.open("x", encoding="utf-8") as file:
        settings.chmod(0o600)
        file.write(_SETTINGS.format(ref_key=secrets.token_hex(32), secret=secret, publisher_digest=digest))
    arguments = [program, "serve", "--config", str(settings)]
    # SIGINT: the one that does not drain
    with Child.run("The relay", arguments, folder / "relay.log", ending=signal.SIGINT) as child:
        deadline = time.monotonic() + START_WITHIN_S
        ports: dict[str, str] = {}
        while ports.keys() < {"public", "stream", "internal"}:
            line = child.read_line(within_s=deadline - time.monotonic())
            if found := re.match(r"(\w+) +\w+ port (\d+)", line):
                ports[found[1]] = found[2]
        yield RunningRelay(
            issuer=f"http://127.0.0.1:{ports['public']}",
            stream=f"ws://127.0.0.1:{ports['stream']}/ws/prices",
            internal=f"http://127.0.0.1:{ports['internal']}",
            sessions=_sessions(secret, sessions),
            publish_key=publish_key,
            pid=child.pid,
        )


def _sessions(secret: str, count: int) -> list[str]:
    now = int(time.time())
    return [
        jwt.encode(
            {
                "sub": f"bench-{number}",
                "roles": ["bench"],
                "sid": f"bench-{number}",
                "token_use": "access",
                "iat": now,
                "exp": now + SESSION_S,
            },
            secret,
            algorithm="HS256",
        )
        for number in range(count)
    ]
