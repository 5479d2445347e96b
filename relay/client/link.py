"""One open connection: frames in, paced frames out, and how it ended.

The relay allows some frames a second and closes on a client that goes on above it; the welcome says how
many, and what is sent here waits for its turn. A link is dead after 2.5 silent heartbeats: TCP alone would
tell after many minutes, while the prices on a screen look perfectly calm.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConcurrencyError, ConnectionClosed

from relay.client.frames import Problem, ServerFrame, Welcome, parse_server_frame
from relay.core.closes import CloseCode
from relay.core.errors import MalformedError
from relay.core.limits import TokenBucket

SILENT_BEATS = 2.5
"""Heartbeats without a sign of life after which the link is dead (the protocol's bound)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The connection is over. `code` is 1006 where no close frame came."""

    code: int
    reason: str


class Link:
    """One connection. `left` are the subscriptions still to be asked for, as (interval_ms, names)."""

    def __init__(
        self, connection: ClientConnection, left: list[tuple[int, list[str]]], *, patience_s: float
    ) -> None:
        self._connection = connection
        self._left = left
        self._patience_s = patience_s
        self._bucket: TokenBucket | None = None
        self._last_id = 0
        self.welcomed_at: float | None = None

    @property
    def has_more_to_ask(self) -> bool:
        """Whether `ask_more` must be called, which the welcome allows."""
        return self.welcomed_at is not None and bool(self._left)

    async def ask_more(self) -> None:
        """Ask for the next of what is left. Cancelled, it is still to do."""
        interval_ms, names = self._left[0]
        await self.ask("subscribe", names, interval_ms=interval_ms)
        del self._left[0]

    async def ask(self, kind: str, names: list[str], **members: Any) -> None:
        """Send one frame when it is its turn. If the connection is over, only `receive` tells."""
        loop = asyncio.get_running_loop()
        if self._bucket is not None and (wait_s := self._bucket.take(loop.time())):
            await asyncio.sleep(wait_s)
            self._bucket.take(loop.time())
        self._last_id += 1
        frame = {"type": kind, "id": self._last_id, "channels": names} | members
        try:
            await self._connection.send(json.dumps(frame))
        except ConnectionClosed:
            return

    async def receive(self) -> ServerFrame | Ended | None:
        """Wait for the next frame; None for one of an unknown type. An `Ended` comes last."""
        try:
            async with asyncio.timeout(self._patience_s):
                text = await self._connection.recv()
        except TimeoutError:
            self._connection.transport.abort()  # a close frame would wait for a dead link's answer
            reason = "no_welcome" if self.welcomed_at is None else "dead_link"
            return Ended(code=CloseCode.ABNORMAL, reason=reason)
        except ConnectionClosed as error:
            close = error.rcvd
            if close is None:
                return Ended(code=CloseCode.ABNORMAL, reason="link_lost")
            return Ended(code=close.code, reason=close.reason)
        try:
            frame = parse_server_frame(text)
        except MalformedError as error:
            return Problem(
                code="malformed_frame", message=f"The server sent no frame of the protocol: {error.detail}."
            )
        if isinstance(frame, Welcome):
            self._welcome(frame)
        return frame

    def _welcome(self, frame: Welcome) -> None:
        self.welcomed_at = asyncio.get_running_loop().time()
        self._patience_s = SILENT_BEATS * frame.heartbeat_ms / 1000
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
