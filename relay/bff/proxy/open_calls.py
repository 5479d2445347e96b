"""The calls that run now. A log-out or a revocation ends those of its session, and a client that has gone its own."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from relay.core.errors import Reason
from relay.core.revocations import Kind, Target
from relay.sessions.base import Session

LOOK_EVERY_S: Final = 0.5
"""Seconds between two looks at clients that are not read. A client that has gone is noticed by reading, and nobody
reads while the backend takes an upload more slowly than it comes."""


class RunningCall(Protocol):
    """One call."""

    @property
    def session(self) -> Session:
        """The session that it belongs to."""
        ...

    @property
    def is_stream(self) -> bool:
        """Whether it ends by nobody's plan: server-sent events, lines of JSON."""
        ...

    @property
    def client_has_gone(self) -> bool:
        """Whether the client has closed the connection, also if nobody reads from it."""
        ...

    def stop(self, reason: Reason) -> None:
        """End it without waiting."""
        ...


class OpenCalls:
    """All calls of this process, by session."""

    def __init__(self, *, per_session: int) -> None:
        self._per_session = per_session
        self._by_session: dict[str, set[RunningCall]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._removed = asyncio.Event()
        self.count = 0

    def update(self, *, per_session: int) -> None:
        """Use another bound for the next calls."""
        self._per_session = per_session

    def add(self, call: RunningCall) -> bool:
        """Add a call. Return False if its session has as many as it may have."""
        own = self._by_session.setdefault(call.session.ref, set())
        if len(own) >= self._per_session:
            return False
        own.add(call)
        self.count += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        return True

    def remove(self, call: RunningCall) -> None:
        """Remove a call that was added."""
        own = self._by_session[call.session.ref]
        own.discard(call)
        self.count -= 1
        self._removed.set()
        if not own:
            del self._by_session[call.session.ref]

    def end(self, target: Target) -> int:
        """End the calls of a session or a user that was revoked, and return their number."""
        if target.kind is Kind.SESSION:
            return self._stop(lambda call: call.session.ref == target.name, Reason.SESSION_REVOKED)
        if target.kind is Kind.USER:
            return self._stop(lambda call: call.session.subject == target.name, Reason.SESSION_REVOKED)
        return 0  # no call has a scoped token

    def end_streams(self) -> int:
        """End the streams, which would never end by themselves, because the relay stops."""
        return self._stop(lambda call: call.is_stream, Reason.SERVER_STOPPING)

    async def drain(self, within_s: float) -> None:
        """Wait for the calls that run now, but not for streams, because the relay stops; `within_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(not call.is_stream for own in self._by_session.values() for call in own):
                    self._removed.clear()
                    await self._removed.wait()

    def _stop(self, is_meant: Callable[[RunningCall], bool], reason: Reason) -> int:
        found = [call for own in self._by_session.values() for call in own if is_meant(call)]
        for call in found:
            call.stop(reason)
        return len(found)

    def _look(self) -> None:
        self._timer = None
        self._stop(lambda call: call.client_has_gone, Reason.CLIENT_CLOSED)
        if self._by_session:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
