"""A relay whose every frame is written by the test, on real sockets, and the page that talks to it.

The client has to do the right thing when a server is silent, refuses, repeats itself or dies. A real relay does
none of that on request. The clock of the page is Playwright's, so that no test waits for a back-off or a heartbeat.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.support.compression_ways import messages, way
from tests.support.scripted_servers import DEFLATE

if TYPE_CHECKING:
    from playwright.async_api import Page

CLIENT = Path(__file__).parents[2] / "relay" / "browser" / "dist" / "relay-client.js"
PATIENCE_S = 20
"""Until a test that waits for an event gives up; a busy machine needs seconds to start a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The server's end of one connection."""

    connection: ServerConnection

    @property
    def query(self) -> dict[str, list[str]]:
        """What the URL asked for. The tests run with `compress=1` and without it."""
        assert self.connection.request is not None
        query = parse_qs(urlsplit(self.connection.request.path).query)
        query.pop("compress", None)
        return query

    @property
    def compressed(self) -> bool:
        """Whether compression was asked for, and is negotiated."""
        return bool(self.connection.protocol.extensions)

    @property
    def offered(self) -> str:
        """The subprotocols that the client offered."""
        assert self.connection.request is not None
        return self.connection.request.headers.get("Sec-WebSocket-Protocol", "")

    async def send(self, *frames: dict[str, Any]) -> None:
        """Send each frame as JSON: values as one batch to a client that has asked for it, as a relay does."""
        for message in messages(frames, batched=bool(self.connection.protocol.extensions)):
            await self.connection.send(json.dumps(message))

    async def welcome(self, *, heartbeat_ms: int = 5000, ts: int = 1_790_000_000_000) -> None:
        """Say welcome, as a relay does to a token that it accepts."""
        frame = {
            "type": "welcome",
            "connection": "c1",
            "protocol": "relay.v1",
            "ts": ts,
            "heartbeat_ms": heartbeat_ms,
            "expires_at": ts + 3_600_000,
            "limits": {"channels": 1024, "frame_bytes": 16384, "frames_per_s": 10},
        }
        await self.connection.send(json.dumps(frame))

    async def next(self) -> dict[str, Any]:
        """Return the client's next frame."""
        async with asyncio.timeout(PATIENCE_S):
            frame: dict[str, Any] = json.loads(await self.connection.recv())
        return frame

    async def close(self, code: int, reason: str = "") -> None:
        """Close with `code`; 1006 cuts the link without a close frame."""
        if code == 1006:
            self.connection.transport.abort()
        else:
            await self.connection.close(code, reason)

    async def gone(self) -> int | None:
        """Wait until the client has closed, and return its code."""
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.wait_closed()
        return self.connection.close_code


@dataclass(slots=True, kw_only=True)
class ScriptedRelay:
    """Accepts connections, or refuses as many as `refusing` says, and serves the client's file on the same port."""

    refusing: int = 0
    refusal: tuple[int, str, bytes] = (401, "text/plain", b"")
    """Status, content type and body of a refused upgrade."""

    origin: str = ""
    path: str = "/ws/prices"
    _peers: asyncio.Queue[Peer] = field(default_factory=asyncio.Queue)

    @property
    def endpoint(self) -> str:
        """The address for WebSockets."""
        return self.origin.replace("http", "ws") + self.path

    async def accept(self) -> Peer:
        """Return the next connection; nothing was sent on it."""
        async with asyncio.timeout(PATIENCE_S):
            peer = await self._peers.get()
        assert peer.compressed or not way.compressed, "The page did not ask for compression."
        return peer

    async def handle(self, connection: ServerConnection) -> None:
        """Hand the connection to the test and keep it."""
        self._peers.put_nowait(Peer(connection=connection))
        await connection.wait_closed()

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Serve the two files, or refuse the upgrade."""
        if request.path == "/":
            return _response(200, "text/html", b"<!doctype html><title>client</title>")
        if request.path in ("/client/relay-client.js", "/client/relay-session.js"):
            return _response(200, "text/javascript", (CLIENT.parent / request.path[8:]).read_bytes())
        if not request.path.startswith(self.path):
            return _response(404, "text/plain", b"")
        if self.refusing:
            self.refusing -= 1
            return _response(*self.refusal)
        if "compress=1" in request.path:
            connection.protocol.available_extensions = [DEFLATE]
        return None


def _response(status: int, kind: str, body: bytes) -> Response:
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, "", headers, body)


@dataclass(slots=True)
class ScriptedSite:
    """One server for the relays of all tests. A page of an earlier test can't reach the relay of a later one."""

    relay: ScriptedRelay = field(default_factory=ScriptedRelay)
    _tests: int = 0

    def new_relay(self) -> ScriptedRelay:
        """Begin a test."""
        self._tests += 1
        self.relay = ScriptedRelay(origin=self.relay.origin, path=f"/ws/{self._tests}/prices")
        return self.relay

    async def handle(self, connection: ServerConnection) -> None:
        """Hand a connection to the relay that it is for."""
        assert connection.request is not None
        if urlsplit(connection.request.path).path == self.relay.path:
            await self.relay.handle(connection)

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a request."""
        return self.relay.answer(connection, request)


@asynccontextmanager
async def scripted_site() -> AsyncIterator[ScriptedSite]:
    """Run relays that do what the tests say, on a free port."""
    site = ScriptedSite()
    async with serve(
        site.handle,
        "127.0.0.1",
        0,
        process_request=site.answer,
        select_subprotocol=lambda _, offered: "relay.v1" if "relay.v1" in offered else None,  # type: ignore[arg-type, return-value]  # NewType of str
        compression=None,
        ping_interval=None,
    ) as server:
        site.relay.origin = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield site


_START = """
async ({ endpoint, follow, interval_ms, options }) => {
  const { createStream } = await import('/client/relay-client.js');
  window.tokens = 0;
  window.refusal = null;
  window.again = (options) => {
    window.stream = createStream({
      getToken: async () => {
        if (window.refusal) throw Object.assign(new Error('refused'), window.refusal);
        return { wsToken: `token-${++window.tokens}`, endpoint };
      },
      ...options,
    });
    for (const event of ['state', 'silence', 'welcome', 'heartbeat', 'subscribed', 'error', 'snapshot', 'update',
      'token_expiring', 'refreshed'])
      window.stream.on(event, (value) => window.report([event, value]));
  };
  window.again(options);
  window.follow = (channels, options = {}) => {
    const tell = (kind) => (value) => window.report([kind, value]);
    return window.stream.subscribe(channels, {
      onSnapshot: tell('onSnapshot'), onUpdate: tell('onUpdate'), onStatus: tell('onStatus'), onError: tell('onError'),
      onGap: tell('onGap'), ...options,
    });
  };
  if (follow) window.leave = window.follow(follow, { interval_ms });
}
"""


@dataclass(frozen=True, slots=True)
class Clock:
    """The stopped clock of a page and of the other pages of its profile.

    `page.clock` notes each step, and repeats all of them in each document that the profile opens later. Here many tests
    share a page, and each begins at the same time.
    """

    page: "Page"

    async def run_for(self, ms: int) -> None:
        """Let this time pass, with all that is due in it."""
        await self._step("runFor", ms)

    async def fast_forward(self, ms: int) -> None:
        """Jump, and fire what is due once, as after a sleep."""
        await self._step("fastForward", ms)

    async def _step(self, name: str, ms: int) -> None:
        for page in self.page.context.pages:
            await page.evaluate("([name, ms]) => __pwClock.controller[name](ms)", [name, ms])


@dataclass(slots=True, kw_only=True)
class Tab:
    """A page with one stream, and everything that the stream has reported, in order."""

    page: "Page"
    events: asyncio.Queue[tuple[str, Any]] = field(default_factory=asyncio.Queue)

    @property
    def clock(self) -> Clock:
        """The page's clock."""
        return Clock(self.page)

    def report(self, event: list[Any]) -> None:
        """Take what the stream has reported."""
        self.events.put_nowait((event[0], event[1]))

    async def start(
        self, relay: ScriptedRelay, *, follow: str = "", interval_ms: int = 0, **options: Any
    ) -> None:
        """Create the stream as `window.stream`; `window.follow(channels)` subscribes and reports.

        `window.leave()` ends the subscription to `follow`.
        """
        start = {
            "endpoint": relay.endpoint,
            "follow": follow,
            "interval_ms": interval_ms,
            "options": {"compress": way.compressed} | options,
        }
        await self.page.evaluate(_START, start)

    async def next(self, *kinds: str) -> Any:
        """Return the value of the next event of one of `kinds`, skipping others."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                kind, value = await self.events.get()
                if kind in kinds:
                    return value

    def rest(self) -> list[str]:
        """Return the kinds of the events that nobody has taken yet, and forget them."""
        return [self.events.get_nowait()[0] for _ in range(self.events.qsize())]

    async def hide(self, *, hidden: bool) -> None:
        """Let the page believe that it is hidden, or visible again."""
        await self.page.evaluate(
            """(hidden) => {
              Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
              document.dispatchEvent(new Event('visibilitychange'));
            }""",
            hidden,
        )

    async def state(self, name: str) -> dict[str, Any]:
        """Wait until the stream enters the state `name`, and return that change."""
        while (change := await self.next("state"))["state"] != name:
            pass
        found: dict[str, Any] = change
        return found

    async def wait_out(self, change: dict[str, Any]) -> None:
        """Let the time pass that a `waiting` state named."""
        await self.clock.run_for(int(change["retryInMs"]) + 1)
