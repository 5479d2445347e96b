"""Revokes sessions, users, tokens and keys: first in the state store, then on the open connections.

The order matters. A connection that is admitted at the same moment looks at the store once more after it is
registered, so it is ended in any case. The second step can't fail. A connection gets a close frame with 4501 (4001 for
a key) after what was sent before, and nothing more. It is cut after a second if it doesn't answer.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable

from relay.audit.base import Auditor
from relay.core.errors import UnavailableError
from relay.core.events import Action, Client, Event
from relay.core.revocations import Kind, Target
from relay.state.base import State
from relay.state.families import Families
from relay.stream.registry import Registry

_FRESH_S = 5.0
"""Seconds for which a log-in that looks newer than the revocation is taken for one from before it."""
_AGAIN_S = 0.5


class Revoker:
    """Revokes on this node.

    `keep_s` is how long a revocation is kept: as long as a session can live (`relay.sessions.life`).
    `recent_sessions_of` returns the sessions with which a user recently got tokens here, first seen until a time (Unix
    seconds), and `newest_login_of` the time of the newest log-in among them. `forget` is called with a
    revoked session's reference, so that no cached answer of the session verifier outlives it. `end_calls` ends a
    session's calls through the API proxy.
    """

    def __init__(
        self,
        *,
        state: State,
        registry: Registry,
        recent_sessions_of: Callable[[str, float], Iterable[str]],
        newest_login_of: Callable[[str], float] = lambda _user: 0.0,
        forget: Callable[[str], None],
        auditor: Auditor,
        keep_s: float,
        families: Families | None = None,
        end_calls: Callable[[Target], int] = lambda _target: 0,
    ) -> None:
        self._state = state
        self._recent_sessions_of = recent_sessions_of
        self._newest_login_of = newest_login_of
        self._forget = forget
        self._registry = registry
        self._families = families
        self._end_calls = end_calls
        self._auditor = auditor
        self._keep_s = keep_s
        self._telling: set[asyncio.Task[None]] = set()

    async def revoke(
        self,
        target: Target,
        *,
        client: Client,
        user: str = "",
        operator: str = "",
        at: float = 0,
        until: float = 0,
    ) -> int:
        """Refuse the target's tokens from now on and close its connections. Return the number of these.

        `user` is the user of the session, if known. `operator` is the operator who asked, "" for a log-out. The
        revocation is of the time `at` and kept until `until` (Unix seconds), if these are later than now and the usual
        end.

        Raises:
            UnavailableError: if the revocation, or a part of it, could not be stored. A store of this node alone has
                closed no connection then, one of several nodes those of this node (`State.revoke`).
        """
        now = time.time()
        if target.kind is Kind.USER:
            at = max(at, self._newest_login_of(target.name))  # by a clock that may be ahead of this one
        await self._state.revoke(target.key, at=max(now, at), until=max(now + self._keep_s, until))
        sessions = await self._sessions(target)
        for session in sessions:
            await self._state.revoke(session.key, at=now, until=now + self._keep_s)
        closed = self._registry.end(target)
        self._end_calls(target)
        for session in sessions if target.kind is Kind.SESSION else ():  # a user's are ended by now
            closed += self._registry.end(session)
            self._end_calls(session)
        self._auditor.note(_event(target, client=client, user=user, operator=operator, closed=closed))
        for ended in (target, *sessions):
            if ended.kind is Kind.SESSION:
                self._forget(
                    ended.name
                )  # not before the store has the revocation, see `SessionVerifier.forget`
        return closed

    def end_here(self, key: str) -> None:
        """End what this node has of a target that another node revoked. `key` is its `Target.key`."""
        target = Target.of_key(key)
        if target.kind is Kind.USER:
            # The node that revoked knows neither the sessions that were seen here only, nor their log-ins.
            telling = asyncio.create_task(self._tell_seen(target), name="relay-revoked-user")
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        self._registry.end(target)
        self._end_calls(target)
        if target.kind is Kind.SESSION:
            self._forget(target.name)

    async def aclose(self) -> None:
        """Stop telling other nodes of sessions that were seen here."""
        for telling in self._telling:
            telling.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _tell_seen(self, user: Target) -> None:
        """Revoke the sessions of a user whom another node revoked, as far as they were seen here before that."""
        at = self._state.revoked_at(user.key) or 0.0
        refs = self._registry.sessions_of(user.name, at).union(self._recent_sessions_of(user.name, at))
        now = time.time()
        revocations = [(ref, now) for ref in sorted(refs) if self._state.revoked_at(ref) is None]
        newest = self._newest_login_of(user.name)
        if newest > at and now - at < _FRESH_S:  # by a clock that is ahead
            revocations.append((user.key, newest))
        for key, of in revocations:
            while True:
                try:
                    await self._state.revoke(key, at=of, until=now + self._keep_s)
                    break
                except UnavailableError:
                    await asyncio.sleep(_AGAIN_S)

    async def _sessions(self, target: Target) -> list[Target]:
        """Return the known sessions of a log-in or of a user. They are revoked too: a session can renew its tokens.

        Their refresh cookies are over from here on.
        """
        if target.kind not in (Kind.SESSION, Kind.USER):
            return []
        ended: Iterable[str] = ()
        if self._families is not None:
            by = {"session": target.name} if target.kind is Kind.SESSION else {"subject": target.name}
            ended = await self._families.end_sessions(**by)
        if target.kind is Kind.SESSION:
            return [Target(kind=Kind.SESSION, name=ref) for ref in ended if ref != target.name]
        refs = self._registry.sessions_of(target.name).union(
            self._recent_sessions_of(target.name, math.inf), ended
        )
        return [Target(kind=Kind.SESSION, name=ref) for ref in sorted(refs)]


def _event(target: Target, *, client: Client, user: str, operator: str, closed: int) -> Event:
    what = {
        Kind.SESSION: {"session": {"ref": target.name}},
        Kind.USER: {},
        Kind.TOKEN: {"token": {"jti": target.name}},
        Kind.KEY: {"token": {"kid": target.name}},
    }
    return Event(
        action=Action.SESSION_REVOKED,
        user=target.name if target.kind is Kind.USER else user,
        client=client,
        relay={"revoked": target.kind.value, "connections": closed}
        | what[target.kind]
        | ({"operator": {"id": operator}} if operator else {}),
    )
