"""One open connection: frames in, paced frames out, and how it ended.

The relay allows some frames a second and closes on a client that goes on above it; the welcome says how
many, and what is sent here waits for its turn. A link is dead after 2.5 silent heartbeats: TCP alone would
tell after many minutes, while the prices on a screen look perfectly calm. After 1.5 it is worth a warning.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConcurrencyError, ConnectionClosed

from relay.client.asks import Ask
from relay.client.frames import Problem, ServerFrame, Subscribed, Unsubscribed, Welcome, parse_server_frame
from relay.core.closes import CloseCode
from relay.core.errors import MalformedError
from relay.core.token_bucket import TokenBucket

STALE_BEATS, DEAD_BEATS = 1.5, 2.5
"""Heartbeats without a sign of life after which values are stale, and the link is dead (the protocol's bounds)."""

GRACE_S = 0.2
"""A caller that held the event loop for long finds the deadline past and frames still in the kernel: they get
this long to come up before the link is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The connection is over. `code` is 1006 where no close frame came."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing came for 1.5 heartbeats; `since` is when the last frame did, on the event loop's clock."""

    since: float


class Link:
    """One connection. `asks` are the frames that follow the welcome."""

    def __init__(self, connection: ClientConnection, asks: Iterable[Ask], *, patience_s: float) -> None:
        self._connection = connection
        self._asks = deque(asks)
        self._patience_s = patience_s
        self._beat_s = 0.0
        self._bucket: TokenBucket | None = None
        self._last_id = 0
        self._sent: dict[int, Ask] = {}
        self._is_silent = False
        self._grace_until: float | None = None
        self._waiting: asyncio.Timeout | None = None
        self.heard_at = asyncio.get_running_loop().time()
        self.welcomed_at: float | None = None

    @property
    def has_more_to_ask(self) -> bool:
        """Whether `ask_more` must be called, which the welcome allows."""
        return self.welcomed_at is not None and bool(self._asks)

    @property
    def is_asking(self) -> bool:
        """Whether some ask was not sent yet, or not answered."""
        return bool(self._asks or self._sent)

    def add(self, asks: Iterable[Ask]) -> None:
        """Ask for more; `ask_more` sends it."""
        self._asks.extend(asks)

    async def ask_more(self) -> None:
        """Ask for the next of what is left. Cancelled, it is still to do."""
        ask = self._asks[0]
        await self._send(ask.members(), ask)
        self._asks.popleft()

    async def ask(self, ask: Ask) -> None:
        """Send one frame when it is its turn, behind what is left. If the connection is over, only `receive` tells."""
        if self._asks:
            self._asks.append(ask)
        else:
            await self._send(ask.members(), ask)

    async def refresh(self, token: str) -> int:
        """Send a new token; returns the frame's id, which the answer will have."""
        return await self._send({"type": "refresh", "token": token}, None)

    async def _send(self, members: dict[str, Any], ask: Ask | None) -> int:
        loop = asyncio.get_running_loop()
        if self._bucket is not None and (wait_s := self._bucket.acquire(loop.time())):
            await asyncio.sleep(wait_s)
            self._bucket.acquire(loop.time())
        self._last_id += 1
        id = self._last_id
        if ask is not None:
            self._sent[id] = ask  # before sending: another task may read the answer first
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(json.dumps({"id": id} | members))
        return id

    def answered(self, frame: Subscribed | Unsubscribed) -> Ask | None:
        """Return what `frame` answers; None where nobody asked (the URL and the token subscribe, too)."""
        return None if frame.id is None else self._sent.pop(frame.id, None)

    def wake(self) -> None:
        """Let a `receive` that waits return None."""
        if self._waiting is not None and self._waiting.when() is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def receive(self, until: float | None = None) -> ServerFrame | Silence | Ended | None:
        """Wait for the next frame, until a time of the event loop at most. An `Ended` comes last.

        None stands for nothing: a frame of an unknown type, the time was up, somebody called `wake`.
        """
        loop = asyncio.get_running_loop()
        judged_at = self._judged_at(loop.time())
        try:
            async with asyncio.timeout_at(judged_at if until is None else min(judged_at, until)) as waiting:
                self._waiting = waiting
                text = await self._connection.recv()
        except TimeoutError:
            return None if loop.time() < judged_at else self._judge()
        except ConnectionClosed as error:
            close = error.rcvd
            if close is None:
                return Ended(code=CloseCode.ABNORMAL, reason="link_lost")
            return Ended(code=close.code, reason=close.reason)
        finally:
            self._waiting = None
        self.heard_at, self._is_silent, self._grace_until = loop.time(), False, None
        try:
            frame = parse_server_frame(text)
        except MalformedError as error:
            return Problem(
                code="malformed_frame", message=f"The server sent no frame of the protocol: {error.detail}."
            )
        if isinstance(frame, Welcome):
            self._welcome(frame)
        return frame

    def _judged_at(self, now: float) -> float:
        """Return when a link that stays silent is next judged, however often the wait is given up and renewed."""
        patience_s = self._patience_s
        if self.welcomed_at is not None:
            patience_s = self._beat_s * (DEAD_BEATS if self._is_silent else STALE_BEATS)
        judged_at = self.heard_at + patience_s
        if judged_at > now:
            return judged_at
        if self._grace_until is None:
            self._grace_until = now + GRACE_S
        return self._grace_until

    def _judge(self) -> Silence | Ended:
        if self.welcomed_at is not None and not self._is_silent:
            self._is_silent = True
            return Silence(self.heard_at)
        self._connection.transport.abort()  # a close frame would wait for a dead link's answer
        reason = "no_welcome" if self.welcomed_at is None else "dead_link"
        return Ended(code=CloseCode.ABNORMAL, reason=reason)

    def _welcome(self, frame: Welcome) -> None:
        self.welcomed_at = self.heard_at
        self._beat_s = frame.heartbeat_ms / 1000
        rate = max(frame.limits.frames_per_s, 1)
        self._bucket = TokenBucket.full(rate=rate, burst=rate, now=self.welcomed_at)

    async def aclose(self) -> None:
        """Say goodbye and wait for the answer, two seconds at most.

        What still comes is read and thrown away: the answer stands behind it, and with a full queue the
        package stops reading.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._connection.close())
            # ConcurrencyError: somebody iterates in another task, and so reads on
            with contextlib.suppress(ConnectionClosed, ConcurrencyError):
                while True:
                    await self._connection.recv()
