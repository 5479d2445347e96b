"""Reading prices: one subscription that outlives its connections.

There is no task behind this class: whoever iterates does the reading, so a slow consumer slows its own socket
down and the relay conflates for it, instead of old prices piling up here. It also means that heartbeats are
judged, and connections renewed, only while somebody iterates.

    async with Subscriber(url, token) as prices:
        await prices.subscribe(["prices.BTC-USD"])
        async for event in prices:
            ...

    idle ──anext──> token ──> handshake ──> welcome ──> events ──lost──> Closed ──wait──> token …
                      └────────────┴── refused for good: TokenError, HandshakeError, StreamClosedError
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from relay.client.answers import check_base_url
from relay.client.backoff import Backoff
from relay.client.connecting import Retry, TokenSource, open_stream, take_token
from relay.client.errors import HandshakeError, StreamClosedError, TokenError
from relay.client.frames import (
    Closed,
    Event,
    Heartbeat,
    Reconnect,
    ServerFrame,
    Snapshot,
    Subscribed,
    Update,
    Welcome,
)
from relay.client.link import Ended, Link
from relay.client.positions import Positions
from relay.client.wishes import Wishes, in_frames
from relay.core.closes import CloseCode

GOOD_S = 10.0
"""A connection that lived this long was a good one: the back-off starts anew."""

MAX_REFUSALS = 5
"""Fresh tokens refused in a row: by then it is no race any more, but a setting that a person must mend."""

_STOP = frozenset(
    {CloseCode.UNSUPPORTED_DATA, CloseCode.POLICY_VIOLATION, CloseCode.TOO_LARGE, CloseCode.NOT_ALLOWED}
)
_STOP_FROM = 4500
_RESTARTS = frozenset({CloseCode.GOING_AWAY, CloseCode.RESTART})


class Subscriber:
    """Subscriptions at one endpoint, as an asynchronous iterator of events.

    Args:
        url: the endpoint, like `wss://stream.example.com/ws/prices`.
        token: a scoped token, which opens one connection; or an asynchronous function that is asked for a new
            one at every attempt, which is what reconnecting needs.
        origin: the browser origin that the tokens are bound to, if they are.
        tls: a context of your own for `wss`, for instance with a private certificate authority.
        open_timeout_s: how long a handshake, and then the welcome, may take, in seconds.
        backoff: the waits between attempts.

    Iterating raises `TokenError`, `HandshakeError` or `StreamClosedError` when going on is no use, and ends
    after `aclose()`. Whatever can be tried again is reported as a `Closed` event and then tried again.
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
    ) -> None:
        self._url = check_base_url(url, ("ws", "wss"))
        self._token = token
        self._origin = origin
        self._tls = tls if self._url.startswith("wss:") else None
        self._open_timeout_s = open_timeout_s
        self._backoff = backoff or Backoff()
        self._wishes = Wishes()
        self._positions = Positions()
        self._stopped = asyncio.Event()
        self._link: Link | None = None
        self._told_s: float | None = None
        self._retry_at = 0.0
        self._refusals = 0

    def __repr__(self) -> str:
        return f"Subscriber({self._url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection and end the iteration. Calling it again does nothing."""
        self._stopped.set()
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
        self._wishes.add(names, interval_ms)
        if self._link is None:
            return  # goes with the next connection
        for part in in_frames(names):
            await self._link.ask("subscribe", part, interval_ms=interval_ms)

    async def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """Stop wanting channels or patterns, by the names that they were subscribed by."""
        names = self._wishes.remove(_listed(channels))
        self._positions.forget(self._wishes.covers)
        if self._link is None:
            return
        for part in in_frames(names):
            await self._link.ask("unsubscribe", part)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._stopped.is_set():
            if self._link is None:
                event: Event | None = await self._connect()
            elif self._link.has_more_to_ask:
                await self._link.ask_more()
                continue
            else:
                event = self._take(await self._link.receive())
            if event is not None:
                return event
        raise StopAsyncIteration

    # Connecting

    async def _connect(self) -> Closed | None:
        await self._wait_until(self._retry_at)
        if self._stopped.is_set():
            return None
        try:
            token = await take_token(self._token)
        except TokenError as error:
            if not error.retryable:
                raise
            return self._later(error.message, status=error.status, told_s=error.retry_after_s)
        query, asked = self._wishes.query()
        opened = await open_stream(
            f"{self._url}?{query}" if query else self._url,
            token,
            origin=self._origin,
            tls=self._tls,
            timeout_s=self._open_timeout_s,
        )
        if isinstance(opened, Retry):
            if opened.status == 401:
                self._count_refusal(opened)
            return self._later(opened.reason, status=opened.status, told_s=opened.told_s)
        # computed only now: another task may have subscribed during the handshake
        self._link = Link(opened, self._wishes.missing(asked), patience_s=self._open_timeout_s)
        return None

    def _count_refusal(self, refused: Retry) -> None:
        self._refusals += 1
        if not callable(self._token) or self._refusals >= MAX_REFUSALS:
            raise HandshakeError(
                "invalid_token", f"The stream refused the token: {refused.reason}", status=401
            )

    def _later(
        self,
        reason: str,
        *,
        code: int = CloseCode.ABNORMAL,
        status: int | None = None,
        told_s: float | None = None,
    ) -> Closed:
        wait_s = self._backoff.next(told_s=told_s)
        self._retry_at = asyncio.get_running_loop().time() + wait_s
        return Closed(code=code, reason=reason, retry_in_s=wait_s, status=status)

    async def _wait_until(self, at: float) -> None:
        try:
            async with asyncio.timeout_at(at):
                await self._stopped.wait()
        except TimeoutError:
            return

    # Receiving

    def _take(self, frame: ServerFrame | Ended | None) -> Event | None:
        """Follow what the frame means for this subscription; returns it if the caller should see it."""
        match frame:
            case Snapshot() | Update():
                return frame if self._positions.is_new(frame) else None
            case Ended():
                return None if self._stopped.is_set() else self._lost(frame)
            case Reconnect():
                self._told_s = frame.delay_ms / 1000
                return None
            case Heartbeat():
                return None
            case Subscribed():
                self._positions.acknowledge(frame)
            case Welcome():
                self._refusals = 0
        return frame

    def _lost(self, ended: Ended) -> Closed:
        link, self._link = self._link, None
        told_s, self._told_s = self._told_s, None
        now = asyncio.get_running_loop().time()
        if link is not None and link.welcomed_at is not None and now - link.welcomed_at >= GOOD_S:
            self._backoff.reset()
        shown = f"{ended.code} {ended.reason}".strip()
        if ended.code in _STOP or ended.code >= _STOP_FROM:
            raise StreamClosedError(
                ended.code, ended.reason, f"The relay closed the stream for good: {shown}."
            )
        if not callable(self._token):
            raise StreamClosedError(
                ended.code,
                ended.reason,
                f"The stream ended ({shown}) and its token is used up: a new one opens the next.",
            )
        return self._later(ended.reason, code=ended.code, told_s=told_s if ended.code in _RESTARTS else None)


def _listed(channels: str | Iterable[str]) -> list[str]:
    return [channels] if isinstance(channels, str) else list(channels)
