"""A real relay as a process, and a test's calls to it: sessions, tokens, connections, publications."""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from relay.settings.template import settings_text, write_folder
from tests.support import cleared_cookies, preloaded
from tests.support.http_client import http_client
from tests.support.ports import free_ports
from tests.support.preloaded import EVEN_PRIORITY

SECRET = "test-secret-of-the-backend-0123456789abcdef"
REF_KEY = "test-ref-key-0123456789abcdef0123456789abcdef"
PUBLISHER_SECRET = "test-publisher-secret"
PUBLISHER_KEY = f"pricing.{PUBLISHER_SECRET}"
REPORTS = "https://reports.example.com/v1/export"
"""Another service that takes scoped tokens, by the name that is its audience wherever a test runs it."""

GRANTS: dict[str, dict[str, list[str] | bool]] = {
    "trader": {
        "reports": True,
        "trades": ["trades.>"],
        "prices": ["prices.>"],
        "depth": ["depth.>"],
    },
    "guest": {"prices": ["prices.BTC-USD"]},
}
SECTIONS = """
[endpoints.depth]
path = "/ws/depth"
channels = ["depth.>"]

[endpoints.trades]
path = "/ws/trades"
channels = ["trades.>"]
mode = "stream"
silence_ms = 300
history = {{ messages = {history}, seconds = 60 }}

[endpoints.reports]
kind = "service"
url = "{reports}"

[bff]
refresh_cookie = "refresh-token"
{bff}

[limits]
tokens_per_session = "10000/minute"
tokens_per_address = "100000/minute"
logins_per_address = "10000/minute"
logins_per_account = "10000/minute"
logins_per_account_and_address = "10000/minute"
denials_recorded = 100000
subscriptions_recorded = 100000
{limits}

[log]
level = "debug"
{extra}
"""


@dataclass
class Relay:
    """A relay's folder, ports and process."""

    folder: Path
    ports: tuple[int, int, int]
    process: preloaded.Forked | subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=lambda: {"PYTHONPATH": EVEN_PRIORITY})
    arguments: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.ports[1]}"

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[2]}"

    @property
    def log_path(self) -> Path:
        return self.folder / "relay.log"

    @property
    def audit_path(self) -> Path:
        return self.folder / "audit.jsonl"

    def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        with self.log_path.open("a") as log:
            self.process = preloaded.start(
                *("relay", "serve", "--config", str(self.folder / "relay.toml"), *self.arguments),
                environment={**os.environ, **self.environment},
                stderr=log,
            )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(3)]
        if "internal" not in lines[-1]:
            self.kill()
            raise AssertionError(f"the relay did not start: {lines} {self.log_path.read_text()}")

    def kill(self) -> None:
        """kill -9: nothing is written out."""
        assert self.process is not None
        self.process.kill()
        self._reap()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop in order; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self._reap()

    def _reap(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait(15)
        self.process.stdout.close()
        if self.audit_path.exists():
            cleared_cookies.settle(self.ports[0], self.audit)
        return code

    # sessions and tokens

    def session(self, **claims: Any) -> str:
        """Return a session's JWT as the backend would make it."""
        now = int(time.time())
        payload = {
            "sub": "user-1",
            "roles": ["trader"],
            "sid": secrets.token_hex(8),
            "token_use": "access",
            "iat": now,
            "exp": now + 900,
        }
        return jwt.encode(payload | claims, SECRET, algorithm="HS256")

    async def ask(
        self, session: str | None = None, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """POST /auth/ws-token with the session in the cookie, from the application's own page."""
        async with http_client() as client:
            return await client.post(
                f"{self.url}/auth/ws-token",
                headers={
                    "Cookie": f"access-token={session or self.session()}",
                    "Origin": self.url,
                    **(headers or {}),
                },
                json=body,
            )

    async def ask_as(self, body: Any = None, **claims: Any) -> httpx.Response:
        """POST /auth/ws-token with a fresh session that has these claims."""
        return await self.ask(self.session(**claims), body=body)

    async def logout(self, session: str) -> httpx.Response:
        """POST /api/auth/logout with the session in the cookie, from the application's own page."""
        async with http_client() as client:
            headers = {"Cookie": f"access-token={session}", "Origin": self.url}
            return await client.post(f"{self.url}/api/auth/logout", headers=headers)

    async def token(self, session: str | None = None, *, origin: str | None = None, **body: Any) -> str:
        """Return a fresh scoped token. `origin` "" asks as a server-side caller without a browser.

        On a busy machine the relay may send a caller away for a moment, and the caller comes back as any client does.
        """
        headers = {"Authorization": f"Bearer {session or self.session()}"}
        async with http_client() as client:
            named = {"origin": self.url if origin is None else origin} if origin != "" else {}
            for _ in range(5):
                answer = await client.post(f"{self.url}/auth/ws-token", headers=headers, json=body | named)
                if answer.status_code != 503:
                    break
                await asyncio.sleep(float(answer.headers["retry-after"]))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["wsToken"])

    @contextlib.asynccontextmanager
    async def connect(
        self, token: str | None = None, *, query: str = "", path: str = "/ws/prices", **options: Any
    ) -> AsyncIterator["Socket"]:
        """Connect with a token in the subprotocol, from the application's origin, and read `welcome`."""
        text = token or await self.token()
        options.setdefault("origin", self.url)
        async with connect(
            f"{self.stream_url}{path}{query}",
            subprotocols=[Subprotocol("relay.v1"), Subprotocol(f"bearer.{text}")],
            compression=None,
            proxy=None,
            ping_interval=None,
            **options,
        ) as websocket:
            socket_ = Socket(websocket)
            socket_.welcome = await socket_.read("welcome")
            yield socket_

    async def publish(self, channel: str, data: Any, **members: Any) -> httpx.Response:
        """Publish one value with the publisher's key."""
        return await self.publish_raw(json.dumps({"channel": channel, "data": data, **members}).encode())

    async def publish_raw(
        self, body: bytes, *, key: str = PUBLISHER_KEY, path: str = "/v1/publish", **headers: str
    ) -> httpx.Response:
        """POST a body as it is to the internal listener."""
        async with http_client() as client:
            return await client.post(
                f"{self.internal_url}{path}",
                content=body,
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers},
            )

    async def get_internal(self, path: str, *, key: str) -> httpx.Response:
        """GET from the internal listener with a key."""
        async with http_client() as client:
            return await client.get(self.internal_url + path, headers={"Authorization": f"Bearer {key}"})

    # the audit log

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit log's records."""
        whole, _, _ = self.audit_path.read_bytes().rpartition(b"\n")  # the last line may be half written
        return [json.loads(line) for line in whole.splitlines()]

    async def admits(self) -> None:
        """Wait until it admits a token. An engine refuses those from the first two seconds of its life."""
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(InvalidStatus):
                    async with self.connect():
                        return

    async def audited(self, action: str, *, user: str = "", **wanted: Any) -> dict[str, Any]:
        """Wait until a record with this action, and reason and user if told, is in the log, and return the first one.

        Where tests share the relay, others may have caused such records: name a user of the test's own.
        """

        def is_wanted(record: dict[str, Any]) -> bool:
            event = record["event"]
            return (
                event["action"] == action
                and (not user or record.get("user", {}).get("id") == user)
                and all(event.get(key) == value for key, value in wanted.items())
            )

        return await self.recorded(is_wanted)

    async def recorded(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the log has a record for which `is_wanted` is true, and return the first one."""
        async with asyncio.timeout(30):
            while True:
                for record in self.audit():
                    if is_wanted(record):
                        return record
                await asyncio.sleep(0.01)  # the log is a file: there is nothing to await


class Socket:
    """A client's connection that reads frames by type."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.welcome: dict[str, Any] = {}

    async def send(self, **frame: Any) -> None:
        """Send one frame."""
        await self.websocket.send(json.dumps(frame))

    async def next_of_all(self) -> dict[str, Any]:
        """Return the next frame, which may be a heartbeat."""
        async with asyncio.timeout(10):
            frame: dict[str, Any] = json.loads(await self.websocket.recv())
            return frame

    async def next(self) -> dict[str, Any]:
        """Return the next frame but for heartbeats."""
        while (frame := await self.next_of_all())["type"] == "heartbeat":
            pass
        return frame

    async def read(self, kind: str) -> dict[str, Any]:
        """Return the next frame, which must be of this type."""
        frame = await self.next()
        assert frame["type"] == kind, frame
        return frame

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the end and return close code and reason."""
        async with asyncio.timeout(10):
            await self.websocket.wait_closed()
        return self.websocket.close_code, self.websocket.close_reason


def make_relay(
    folder: Path,
    *,
    ports: tuple[int, int, int] | None = None,
    bff: str = "",
    limits: str = "",
    extra: str = "",
    history: int = 10,
) -> Relay:
    """Write settings and keys for a relay into `folder`. `history` is how many messages a stream keeps."""
    http, stream, internal = ports or free_ports(3)
    text = settings_text(
        session_secret=SECRET,
        ref_key=REF_KEY,
        ports=(http, stream, internal),
        grants=GRANTS,
        publishers={
            "pricing": (hashlib.sha256(PUBLISHER_SECRET.encode()).hexdigest(), ["prices.>", "trades.>"])
        },
        sections=SECTIONS.format(reports=REPORTS, bff=bff, limits=limits, extra=extra, history=history),
    )
    write_folder(folder, text)
    return Relay(folder=folder, ports=(http, stream, internal))


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[Relay]:
    """Run a relay for the time of a test."""
    relay = make_relay(folder, **options)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


def with_session(relay: Relay, *lines: str) -> Relay:
    """Put these lines into the settings' session section, in place of the usual verifier."""
    file = relay.folder / "relay.toml"
    kept = [line for line in file.read_text().split("\n") if not line.startswith("signed = ")]
    file.write_text("\n".join(kept).replace("[session]\n", "\n".join(["[session]", *lines, ""])))
    return relay
