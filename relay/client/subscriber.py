"""Reading prices: one subscription that outlives its connections.

There is no task behind this class: whoever iterates does the reading, so a slow consumer slows its own socket
down and the relay conflates for it, instead of old prices piling up here. It also means that heartbeats are
judged, and connections renewed, only while somebody iterates. (One exception, for as long as it takes: a token
for a refresh is asked for in a task, because prices must not wait for an issuer.)

    async with Subscriber(url, token) as prices:
        await prices.subscribe(["prices.BTC-USD"])
        async for event in prices:
            ...

    idle ──anext──> token ──> handshake ──> welcome ──> events ──lost──> Closed ──wait──> token …
                      └────────────┴── refused for good: TokenError, HandshakeError, StreamClosedError

On a `stream` endpoint every message comes once and in order, over reconnects as well: the position of each
channel is kept and sent as `since`. What the relay can't replay is a `Gap`. A consumer that wants that over its
own restarts saves `positions` with its results, and gives them back as `since`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Self

from relay.client.answers import check_base_url
from relay.client.asks import FRAME_CHANNELS, Ask, parts_of
from relay.client.backoff import Backoff
from relay.client.connecting import Retry, TokenSource, open_stream, take_token
from relay.client.errors import TokenError
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
from relay.client.inbox import Inbox
from relay.client.link import Ended, Link, Silence
from relay.client.receipts import Position
from relay.client.reconnecting import Reconnecting
from relay.client.renewal import Renewal
from relay.client.wishes import Wishes


class Subscriber:
    """Subscriptions at one endpoint, as an asynchronous iterator of events.

    Args:
        url: the endpoint, like `wss://stream.example.com/ws/prices`.
        token: a scoped token, which opens one connection; or an asynchronous function that is asked for a new
            one at every attempt and before a connection's end, which is what reconnecting and refreshing need.
        origin: the browser origin that the tokens are bound to, if they are.
        tls: a context of your own for `wss`, for instance with a private certificate authority.
        open_timeout_s: how long a handshake, and then the welcome, may take, in seconds.
        backoff: the waits between attempts.
        since: where to go on, by channel: `positions` of an earlier run, or a `Receipt.position`.
            Only `stream` endpoints have a past; on others it is of no effect.

    `Status` events call each channel stale or live, by the relay's word and by the state of the link; a channel
    that had none is live. Iterating raises `TokenError`, `HandshakeError` or `StreamClosedError` when going on
    is no use, and ends after `aclose()`. Whatever can be tried again is reported as a `Closed` event and then
    tried again.
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
        since: Mapping[str, Position] | None = None,
    ) -> None:
        self._url = check_base_url(url, ("ws", "wss"))
        self._token = token
        self._origin = origin
        self._tls = tls if self._url.startswith("wss:") else None
        self._open_timeout_s = open_timeout_s
        self._reconnecting = Reconnecting(backoff or Backoff(), is_renewable=callable(token))
        self._wishes = Wishes()
        self._inbox = Inbox(self._wishes, since)
        self._stopped = asyncio.Event()
        self._link: Link | None = None
        self._renewal: Renewal | None = None

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
        """The last message of each `stream` channel that was handed out; a copy, to be given as `since`.

        Saved after an event was dealt with, they make sure that none is missed; saved before, that none comes
        twice.
        """
        return {
            channel: Position(channel=channel, epoch=epoch, seq=seq)
            for channel, (epoch, seq) in self._inbox.positions.resumable().items()
        }

    @property
    def can_refresh(self) -> bool:
        """Whether there is a function to take a new token from, when a connection nears its end."""
        return callable(self._token)

    @property
    def server_ms(self) -> int | None:
        """The relay's clock now, in Unix milliseconds, to compare a value's `ts` with; None before a welcome."""
        return self._inbox.clock.ms(_now())

    async def aclose(self) -> None:
        """Close the connection and end the iteration. Calling it again does nothing."""
        self._stopped.set()
        if self._renewal is not None:
            self._renewal.close()
        if self._link is not None:
            await self._link.aclose()

    async def subscribe(self, channels: str | Iterable[str], interval_ms: int = 0) -> None:
        """Want these channels or patterns, now and after every reconnect.

        Returns when it is asked for; the answer comes as a `Subscribed` event. Pass many names in one call:
        the relay takes ten frames a second, and beyond that this waits.

        Raises:
            MalformedError: if a name is neither a channel nor a pattern.
            ConfigurationError: if `interval_ms` is none that the protocol has (0, 50, 100, 250, 500, 1000).
        """
        names = _listed(channels)
        flowing = self._inbox.covered()
        self._wishes.add(names, interval_ms)
        link = self._link
        if link is None:
            return  # goes with the next connection
        for ask in self._inbox.resume(dict.fromkeys(names, interval_ms), again=False, flowing=flowing):
            await link.ask(ask)

    async def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """Stop wanting channels or patterns, by the names that they were subscribed by."""
        names = self._wishes.remove(_listed(channels))
        self._inbox.forget(names)
        link = self._link
        if link is None:
            return
        for part in parts_of(names, FRAME_CHANNELS):
            await link.ask(Ask(kind="unsubscribe", names=part))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._stopped.is_set():
            if (event := self._inbox.next(_now())) is not None:
                return event
            link = self._link
            if link is None:
                await self._connect()
            elif link.has_more_to_ask:
                await link.ask_more()
            elif self._renewal is not None and self._renewal.is_due(_now()):
                await self._renew(link, self._renewal)
            else:
                self._take(await link.receive(None if self._renewal is None else self._renewal.due_at))
        raise StopAsyncIteration

    # Connecting

    async def _connect(self) -> None:
        await self._wait_until(self._reconnecting.at)
        if self._stopped.is_set():
            return
        try:
            token = await take_token(self._token)
        except TokenError as error:
            self._inbox.put(self._reconnecting.without_token(error))
            return
        query, asked = self._wishes.query(self._inbox.positions.resumable())
        opened = await open_stream(
            f"{self._url}?{query}" if query else self._url,
            token,
            origin=self._origin,
            tls=self._tls,
            timeout_s=self._open_timeout_s,
        )
        if isinstance(opened, Retry):
            self._inbox.put(self._reconnecting.refused(opened))
            return
        # computed only now: another task may have subscribed during the handshake.
        # Without a channel in the URL the relay subscribes to those of the token, and from their newest value
        asks = self._inbox.resume(self._wishes.missing(asked), again=not query)
        self._link = Link(opened, asks, patience_s=self._open_timeout_s)
        if self._stopped.is_set():  # by another task, during the handshake
            await self._link.aclose()

    async def _wait_until(self, at: float) -> None:
        try:
            async with asyncio.timeout_at(at):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _renew(self, link: Link, renewal: Renewal) -> None:
        outcome = renewal.take(_now())
        if isinstance(outcome, str):
            renewal.sent(await link.refresh(outcome))
        else:
            self._inbox.put(outcome)

    # Receiving

    def _take(self, frame: ServerFrame | Silence | Ended | None) -> None:
        """Follow what the frame means for this subscription; what the caller should see goes to the inbox."""
        now, inbox, link = _now(), self._inbox, self._link
        if frame is None or link is None:
            return
        if isinstance(frame, Ended):
            self._lost(link, frame)
        elif isinstance(frame, Silence):
            inbox.silent(frame.since)
        elif isinstance(frame, Snapshot | Update):
            live_again = inbox.heard(frame, now)
            link.add(inbox.value(frame, now))
            inbox.put(*live_again)  # behind the value, which must be the first in the queue
        else:
            inbox.put(*inbox.heard(frame, now))
            self._follow(link, frame, now)

    def _follow(self, link: Link, frame: ServerFrame, now: float) -> None:
        """Follow a frame that is no value."""
        inbox, renewal = self._inbox, self._renewal
        shown: Event | None = None
        match frame:
            case Heartbeat():
                pass
            case Status():
                inbox.status(frame, now)
            case Subscribed():
                inbox.subscribed(frame, link.answered(frame), now)
            case Unsubscribed():
                ask = link.answered(frame)
                shown = None if ask is not None and ask.is_ours else frame
            case Welcome():
                self._reconnecting.welcomed()
                self._renewal = Renewal(self._token, frame, wake=link.wake)
                shown = frame
            case Reconnect():
                self._reconnecting.told(frame.delay_ms)
            case TokenExpiring():
                if renewal is not None:
                    renewal.warned(frame.expires_in_ms, now)
                shown = frame
            case Refreshed():
                if renewal is not None:
                    renewal.refreshed(frame, inbox.clock.ms(now), now)
                shown = frame
            case Problem():
                # the relay could not know that the frames that subscribe are on their way
                is_early = frame.code == "nothing_subscribed" and link.is_asking
                refused = None if renewal is None else renewal.refused(frame, now)
                shown = None if is_early else refused or frame
        inbox.put(shown)

    def _lost(self, link: Link, ended: Ended) -> None:
        self._link = None
        if self._renewal is not None:
            self._renewal.close()
            self._renewal = None
        stale = self._inbox.lost(link.heard_at)
        if self._stopped.is_set():
            return
        lasted_s = 0.0 if link.welcomed_at is None else _now() - link.welcomed_at
        self._inbox.put(self._reconnecting.ended(ended, lasted_s=lasted_s), *stale)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _listed(channels: str | Iterable[str]) -> list[str]:
    return [channels] if isinstance(channels, str) else list(channels)
