"""One open connection to the stream: frames in, frames out at the allowed rate, and how it ended.

The welcome names how many frames a second the relay takes. It closes connections that send more, so frames wait here
for their turn. TCP alone reports a dead link after many minutes, so the relay's heartbeats are watched as well.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConcurrencyError, ConnectionClosed

from relay.client.backoff import bounded_ms
from relay.client.frames import (
    Batch,
    Problem,
    Refreshed,
    ServerFrame,
    Subscribed,
    Unsubscribed,
    Welcome,
    parse_server_frame,
)
from relay.client.subscriptions import SubscriptionRequest
from relay.core.closes import CloseCode
from relay.core.errors import MalformedError, Reason
from relay.core.token_bucket import TokenBucket

STALE_BEATS, DEAD_BEATS = 1.5, 2.5
"""Heartbeat intervals without a frame after which values are stale, and the link is dead (the protocol's bounds)."""

MIN_HEARTBEAT_S = 0.01
"""Shortest heartbeat interval that is believed: with 0 every link would be dead at once."""

GRACE_S = 0.2
"""How long the link is read once more after its deadline. A caller that blocked the event loop finds the deadline past
and frames still in the kernel; without this time a good link would be called dead."""

REPEAT_S = 0.25
"""Shortest wait before a refused request is sent again, as in the browser client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The connection is over. `code` is 1006 if no close frame came."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Silence:
    """No frame came for 1.5 heartbeat intervals. `since`: when the last frame came, on the event loop's clock."""

    since: float


class Connection:
    """One connection. `requests` are sent after the welcome, which must come within `welcome_timeout_s`."""

    def __init__(
        self,
        connection: ClientConnection,
        requests: Iterable[SubscriptionRequest],
        *,
        welcome_timeout_s: float,
    ) -> None:
        self._connection = connection
        self._requests = deque(requests)
        self._welcome_timeout_s = welcome_timeout_s
        self._heartbeat_s = 0.0
        self._bucket: TokenBucket | None = None
        self._last_id = 0
        self._sent: dict[int, SubscriptionRequest | None] = {}
        """Frames without an answer, in the order of sending; None for a refresh."""
        self._unread: deque[bytes] = deque()
        """What is left of a batch."""
        self._held_until = 0.0
        self._is_silent = False
        self._grace_until: float | None = None
        self._waiting: asyncio.Timeout | None = None
        self.heard_at = asyncio.get_running_loop().time()
        self.welcomed_at: float | None = None

    @property
    def has_requests(self) -> bool:
        """Whether `send_next_request` must be called. False before the welcome."""
        return self.requests_at is not None and self.requests_at <= asyncio.get_running_loop().time()

    @property
    def requests_at(self) -> float | None:
        """When `send_next_request` must be called, on the event loop's clock. None without requests or a welcome."""
        return None if self.welcomed_at is None or not self._requests else self._held_until

    @property
    def has_open_requests(self) -> bool:
        """Whether a request was not sent yet, or not answered."""
        return bool(self._requests) or any(request is not None for request in self._sent.values())

    def add(self, requests: Iterable[SubscriptionRequest]) -> None:
        """Queue more requests; `send_next_request` sends them."""
        self._requests.extend(requests)

    async def send_next_request(self) -> None:
        """Send the next queued request. If this call is cancelled, the request stays queued."""
        request = self._requests[0]
        await self._send(request.members(), request)
        self._requests.popleft()

    async def request(self, request: SubscriptionRequest) -> None:
        """Send one request, after the queued ones. If the connection is over, only `receive` reports it."""
        if self._requests:
            self._requests.append(request)
        else:
            await self._send(request.members(), request)

    async def refresh(self, token: str) -> int:
        """Send a new token. Returns the frame's id; the answer has the same one."""
        return await self._send({"type": "refresh", "token": token}, None)

    async def _send(self, members: dict[str, Any], request: SubscriptionRequest | None) -> int:
        loop = asyncio.get_running_loop()
        if self._bucket is not None and (wait_s := self._bucket.acquire(loop.time())):
            await asyncio.sleep(wait_s)
            self._bucket.acquire(loop.time())
        self._last_id += 1
        id = self._last_id
        self._sent[id] = request  # before sending: another task may read the answer first
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(json.dumps({"id": id} | members))
        return id

    def answered(self, frame: Subscribed | Unsubscribed | Refreshed) -> SubscriptionRequest | None:
        """Return the request that `frame` answers; None for a refresh and for subscriptions by the URL or the token."""
        return None if frame.id is None else self._sent.pop(frame.id, None)

    def refused(self, problem: Problem) -> tuple[Problem, bool]:
        """Return `problem` with the id of the frame that it refuses, and whether that is a request that is sent again.

        A rate limit has no id, because the relay did not look at the frame. The relay answers frames in their order, so
        it is the oldest one without an answer.
        """
        id = problem.id
        if id is None and problem.code == Reason.RATE_LIMITED:
            id = next(iter(self._sent), None)
            problem = msgspec.structs.replace(problem, id=id)
        request = None if id is None else self._sent.pop(id, None)
        if request is None or not problem.retryable:
            return problem, False
        self._requests.appendleft(request)
        wait_s = max(bounded_ms(problem.retry_after_ms or 0), REPEAT_S)
        self._held_until = max(self._held_until, asyncio.get_running_loop().time() + wait_s)
        return problem, True

    def wake(self) -> None:
        """Make a waiting `receive` return None."""
        if self._waiting is not None and self._waiting.when() is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def receive(self, until: float | None = None) -> ServerFrame | Silence | Ended | None:
        """Wait for the next frame, at most until this time of the event loop. An `Ended` comes last.

        Returns None for a frame of an unknown type, when the time is over, and after a call of `wake`.
        """
        if self._unread:
            return self._parse(self._unread.popleft())
        loop = asyncio.get_running_loop()
        deadline = self._deadline(loop.time())
        try:
            async with asyncio.timeout_at(deadline if until is None else min(deadline, until)) as waiting:
                self._waiting = waiting
                text = await self._connection.recv()
        except TimeoutError:
            return None if loop.time() < deadline else self._deadline_missed()
        except ConnectionClosed as error:
            close = error.rcvd
            if close is None:
                return Ended(code=CloseCode.ABNORMAL, reason="link_lost")
            return Ended(code=close.code, reason=close.reason)
        finally:
            self._waiting = None
        self.heard_at, self._is_silent, self._grace_until = loop.time(), False, None
        return self._parse(text)

    def _parse(self, text: str | bytes) -> ServerFrame | None:
        try:
            frame = parse_server_frame(text)
        except MalformedError as error:
            return Problem(
                code="malformed_frame", message=f"The server sent no frame of the protocol: {error.detail}."
            )
        if isinstance(frame, Batch):
            self._unread.extend(map(bytes, frame.frames))
            return None
        if isinstance(frame, Welcome):
            self._welcome(frame)
        return frame

    def _deadline(self, now: float) -> float:
        """Return until when a frame must come. Interrupted waits do not move it."""
        allowed_s = self._welcome_timeout_s
        if self.welcomed_at is not None:
            allowed_s = self._heartbeat_s * (DEAD_BEATS if self._is_silent else STALE_BEATS)
        deadline = self.heard_at + allowed_s
        if deadline > now:
            return deadline
        if self._grace_until is None:
            self._grace_until = now + GRACE_S
        return self._grace_until

    def _deadline_missed(self) -> Silence | Ended:
        if self.welcomed_at is not None and not self._is_silent:
            self._is_silent = True
            return Silence(self.heard_at)
        self._connection.transport.abort()  # a close frame would wait for the answer of a dead link
        reason = "no_welcome" if self.welcomed_at is None else "dead_link"
        return Ended(code=CloseCode.ABNORMAL, reason=reason)

    def _welcome(self, frame: Welcome) -> None:
        self.welcomed_at = self.heard_at
        self._heartbeat_s = max(bounded_ms(frame.heartbeat_ms), MIN_HEARTBEAT_S)
        rate = max(frame.limits.frames_per_s, 1)
        self._bucket = TokenBucket.full(rate=rate, burst=rate, now=self.welcomed_at)

    async def aclose(self) -> None:
        """Send a close frame and wait for the answer, at most two seconds.

        Frames that still come are read and dropped: the answer comes after them, and websockets stops reading when
        its queue is full.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._connection.close())
            # ConcurrencyError: another task iterates, and so reads the remaining frames
            with contextlib.suppress(ConnectionClosed, ConcurrencyError):
                while True:
                    await self._connection.recv()
