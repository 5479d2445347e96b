"""Reading prices: subscriptions that outlive their connections.

The first step of the iteration starts a task. It connects, reads, refreshes and reconnects until `aclose()`, however
often the caller comes back for an event, and whether or not a wait for one is cancelled. If the caller's iteration read
the socket, a slow caller would leave minutes of small frames in the socket's buffers, and get prices as old as that.
`relay.client.event_queue` keeps the newest values instead.

    async with Subscriber(url, token) as prices:
        await prices.subscribe(["prices.BTC-USD"])
        async for event in prices:
            ...

    idle ──anext──> token ──> handshake ──> welcome ──> events ──lost──> Closed ──wait──> token …
                      └────────────┴── final refusal: TokenError, HandshakeError, StreamClosedError

On a `stream` endpoint every message comes once and in order, also over reconnects: the position of each channel is kept
and sent as `since`. Messages that the relay can't replay are reported as a `Gap`. To keep this guarantee over restarts
of its own, a consumer saves `positions` with its results and passes them as `since`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Self

from relay.client.backoff import Backoff
from relay.client.connection import Connection, Ended, Silence
from relay.client.errors import TokenError
from relay.client.event_queue import EventQueue
from relay.client.events import Event
from relay.client.frames import (
    Heartbeat,
    Problem,
    Reconnect,
    Refreshed,
    ServerFrame,
    Snapshot,
    Status,
    Subscribed,
    TokenExpiring,
    Unsubscribed,
    Update,
    Welcome,
)
from relay.client.handshake import Retry, TokenSource, open_stream, resolve_token
from relay.client.receipts import Position
from relay.client.reconnect_policy import ReconnectPolicy
from relay.client.renewal import Renewal
from relay.client.responses import check_base_url
from relay.client.subscriptions import FRAME_CHANNELS, DesiredSubscriptions, SubscriptionRequest, parts_of

BUSY_S = 0.005
"""A caller that was away longer than this may have blocked the event loop, and with it the reading."""
CATCH_UP_S = 0.1
"""Longest time for the reading before an event is handed out to such a caller."""
IDLE_TURNS = 4
"""Turns of the event loop without a frame after which everything is read: the socket needs two, the task one."""


class Subscriber:
    """Subscriptions at one endpoint, as an asynchronous iterator of events.

    Args:
        url: the endpoint, like `wss://stream.example.com/ws/prices`.
        token: a scoped token, which opens one connection; or an asynchronous function that returns a new token. It
            is called for every attempt and before a connection's end; reconnecting and refreshing need it.
        origin: the browser origin that the tokens are bound to, if they are.
        tls: a TLS context for `wss`, for instance with a private certificate authority.
        open_timeout_s: how long the handshake, and then the welcome, may take, in seconds.
        backoff: the waits between attempts.
        compress: whether connections ask the relay to compress what an interval collects. By default they do if a
            channel has an interval when they are opened. Later a connection can't ask any more.
        since: the positions to resume from, by channel: `positions` of an earlier run, or a `Receipt.position`.
            It has an effect on `stream` endpoints only: others keep no history.

    `Status` events report a channel as stale or live, from the relay's frames and from the state of the link. A channel
    without a `Status` event is live. Iterating raises `TokenError`, `HandshakeError` or `StreamClosedError` if another
    attempt can't work, and ends after `aclose()`. Every other failure is a `Closed` event, and a new attempt follows:
    also an exception of the caller's token function.

    A caller that is slower than a `latest` channel gets its newest value, at most a second old when it is handed out.
    A caller that is too slow for a `stream` channel is disconnected by the relay (4008), and then resumes.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        origin: str | None = None,
        tls: ssl.SSLContext | None = None,
        open_timeout_s: float = 10.0,
        backoff: Backoff | None = None,
        compress: bool | None = None,
        since: Mapping[str, Position] | None = None,
    ) -> None:
        self._url = check_base_url(url, ("ws", "wss"))
        self._token = token
        self._origin = origin
        self._tls = tls if self._url.startswith("wss:") else None
        self._open_timeout_s = open_timeout_s
        self._compress = compress
        self._reconnects = ReconnectPolicy(backoff or Backoff(), is_renewable=callable(token))
        self._desired = DesiredSubscriptions()
        self._queue = EventQueue(self._desired, since)
        self._stopped = asyncio.Event()
        self._connection: Connection | None = None
        self._renewal: Renewal | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_iterating = False
        self._changed = asyncio.Event()
        self._steps = 0
        self._yielded_at = 0.0

    def __repr__(self) -> str:
        return f"Subscriber({self._url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def positions(self) -> dict[str, Position]:
        """A copy of the last handed-out position of each `stream` channel, for `since`.

        Save it after an event was processed, and no message is missed. Save it before, and none comes twice.
        """
        return {
            channel: Position(channel=channel, epoch=epoch, seq=seq)
            for channel, (epoch, seq) in self._queue.handed_out.items()
        }

    @property
    def can_refresh(self) -> bool:
        """Whether a new token can be fetched before a connection's end: `token` is a function."""
        return callable(self._token)

    @property
    def server_ms(self) -> int | None:
        """The relay's current time in Unix milliseconds, for comparison with a value's `ts`; None before a welcome."""
        return self._queue.clock.ms(_now())

    async def aclose(self) -> None:
        """Close the connection and end the iteration. Calling it again does nothing."""
        self._stopped.set()
        self._changed.set()
        if self._renewal is not None:
            self._renewal.close()
        if (task := self._task) is not None:
            self._task = None
            task.cancel()
            await asyncio.wait([task])
            task.cancelled() or task.exception()  # otherwise asyncio logs one that nobody iterated for
        if self._connection is not None:
            await self._connection.aclose()

    async def subscribe(self, channels: str | Iterable[str], interval_ms: int = 0) -> None:
        """Subscribe to these channels or patterns, now and after every reconnect.

        Returns when the request is sent; the answer comes as a `Subscribed` event. Pass many names in one call: the
        relay takes ten frames a second, and this call waits if there are more.

        Raises:
            MalformedError: if a name is neither a channel nor a pattern.
            ConfigurationError: if `interval_ms` is not one of the protocol's intervals (0, 50, 100, 250, 500, 1000).
        """
        names = _listed(channels)
        flowing = self._queue.covered()
        self._desired.add(names, interval_ms)
        connection = self._connection
        if connection is None:
            return  # the next connection requests them
        for request in self._queue.resume(dict.fromkeys(names, interval_ms), again=False, flowing=flowing):
            await connection.request(request)

    async def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """Unsubscribe from channels or patterns, by the names that were given to `subscribe`."""
        names = self._desired.remove(_listed(channels))
        self._queue.forget(names)
        connection = self._connection
        if connection is None:
            return
        for part in parts_of(names, FRAME_CHANNELS):
            await connection.request(SubscriptionRequest(kind="unsubscribe", names=part))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._is_iterating:
            raise RuntimeError(
                "Another task waits for this subscriber's next event: only one may iterate it."
            )
        self._is_iterating = True
        try:
            return await self._next()
        finally:
            self._is_iterating = False

    async def _next(self) -> Event:
        if _now() - self._yielded_at > BUSY_S:
            await self._catch_up()
        while not self._stopped.is_set():
            if (event := self._queue.next(_now())) is not None:
                self._changed.set()  # there is room again
                return event
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
            elif self._task.done():
                task, self._task = self._task, None
                task.result()  # raises why no attempt can work; the next step begins again
                continue
            self._changed.clear()
            await self._changed.wait()
            self._yielded_at = _now()
        raise StopAsyncIteration

    async def _catch_up(self) -> None:
        """Let the task read what arrived while the caller was busy, also if it blocked the event loop."""
        until, idle = _now() + CATCH_UP_S, 0
        while idle < IDLE_TURNS and _now() < until and self._task is not None:
            steps = self._steps
            await asyncio.sleep(0)
            idle = idle + 1 if steps == self._steps else 0
        self._yielded_at = _now()

    # The task

    async def _run(self) -> None:
        """Connect, read, refresh and reconnect, until it is cancelled or no attempt can work."""
        try:
            while True:
                while not self._queue.has_room:
                    self._changed.clear()
                    await self._changed.wait()
                await self._step()
                self._steps += 1
                self._changed.set()
        finally:
            self._changed.set()

    async def _step(self) -> None:
        connection = self._connection
        if connection is None:
            await self._connect()
        elif connection.has_requests:
            await connection.send_next_request()
        elif self._renewal is not None and self._renewal.is_due(_now()):
            await self._renew(connection, self._renewal)
        else:
            due = (None if self._renewal is None else self._renewal.due_at, connection.requests_at)
            until = min((at for at in due if at is not None), default=None)
            self._process(await connection.receive(until))

    def _put(self, *events: Event | None) -> None:
        self._queue.put(*events, now=_now())

    # Connecting

    async def _connect(self) -> None:
        if (wait_s := self._reconnects.at - _now()) > 0:
            await asyncio.sleep(wait_s)
        try:
            token = await resolve_token(self._token)
        except TokenError as error:
            self._put(self._reconnects.without_token(error))
            return
        query, asked = self._desired.query(self._queue.positions.resumable())
        compress = self._desired.has_interval if self._compress is None else self._compress
        members = "&".join(filter(None, (query, "compress=1" if compress else "")))
        opened = await open_stream(
            f"{self._url}?{members}" if members else self._url,
            token,
            origin=self._origin,
            tls=self._tls,
            timeout_s=self._open_timeout_s,
            compress=compress,
        )
        if isinstance(opened, Retry):
            self._put(self._reconnects.refused(opened))
            return
        # computed after the handshake: another task may have subscribed in that time.
        # Without channels in the URL the relay subscribes to the token's channels, from their newest value
        requests = self._queue.resume(self._desired.missing(asked), again=not query)
        self._connection = Connection(opened, requests, welcome_timeout_s=self._open_timeout_s)

    async def _renew(self, connection: Connection, renewal: Renewal) -> None:
        outcome = renewal.poll(_now())
        if isinstance(outcome, str):
            renewal.sent(await connection.refresh(outcome))
        else:
            self._put(outcome)

    # Receiving

    def _process(self, frame: ServerFrame | Silence | Ended | None) -> None:
        """Process a frame; events for the caller go to the queue."""
        now, queue, connection = _now(), self._queue, self._connection
        if frame is None or connection is None:
            return
        if isinstance(frame, Ended):
            self._lost(connection, frame)
        elif isinstance(frame, Silence):
            queue.silent(frame.since, now)
        elif isinstance(frame, Snapshot | Update):
            live_again = queue.heard(frame, now)
            connection.add(queue.value(frame, now))
            self._put(*live_again)  # after the value
        else:
            self._put(*queue.heard(frame, now))
            self._process_control(connection, frame, now)

    def _process_control(self, connection: Connection, frame: ServerFrame, now: float) -> None:
        """Process a frame that is not a value."""
        queue, renewal = self._queue, self._renewal
        shown: Event | None = None
        match frame:
            case Heartbeat():
                pass
            case Status():
                queue.status(frame, now)
            case Subscribed():
                queue.subscribed(frame, connection.answered(frame), now)
            case Unsubscribed():
                request = connection.answered(frame)
                shown = None if request is not None and request.is_internal else frame
            case Welcome():
                self._reconnects.welcomed()
                self._renewal = Renewal(self._token, frame, wake=connection.wake)
                shown = frame
            case Reconnect():
                self._reconnects.restart_announced(frame.delay_ms)
            case TokenExpiring():
                if renewal is not None:
                    renewal.warned(frame.expires_in_ms, now)
                shown = frame
            case Refreshed():
                connection.answered(frame)
                if renewal is not None:
                    renewal.refreshed(frame, queue.clock.ms(now), now)
                shown = frame
            case Problem():
                # the relay sent it before it received the frames that subscribe
                is_early = frame.code == "nothing_subscribed" and connection.has_open_requests
                problem, is_repeated = connection.refused(frame)
                refused = None if renewal is None else renewal.refused(problem, now)
                shown = None if is_early or is_repeated else refused or frame
        self._put(shown)

    def _lost(self, connection: Connection, ended: Ended) -> None:
        self._connection = None
        if self._renewal is not None:
            self._renewal.close()
            self._renewal = None
        stale = self._queue.lost(connection.heard_at)
        lasted_s = 0.0 if connection.welcomed_at is None else _now() - connection.welcomed_at
        self._put(self._reconnects.ended(ended, lasted_s=lasted_s), *stale)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _listed(channels: str | Iterable[str]) -> list[str]:
    return [channels] if isinstance(channels, str) else list(channels)
