"""The live connections of this node, by session: a logout finds them, and the number of each session's is limited.

Only sessions are indexed. The connections of a user, a token or a key are found by a look at all connections, because
revocations of these are rare. That takes some 10 ms for 20,000 connections. An index would cost each connection 300
bytes.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol
from uuid import UUID

from relay.core.closes import Close, close_for
from relay.core.errors import Reason
from relay.core.revocations import Kind, Target
from relay.net.admission import AdmissionQueue
from relay.state.base import NoPlaceError, Place, Places
from relay.stream.gate import Admitted
from relay.stream.lifecycle import GONE, Phase

ConnectionCursor = tuple[float, int]
"""A place in the list of connections by age: `opened_at`, and the id as a number. It stays valid when some end."""


class Connection(Protocol):
    """A connection of any transport. Connections are compared by identity."""

    id: UUID
    phase: Phase
    accepted_status: int
    """The HTTP status with which it was accepted."""
    opened_at: float
    """In Unix seconds, for lists and records."""

    @property
    def age_s(self) -> float:
        """Return for how many seconds it has been open."""
        ...

    @property
    def messages_out(self) -> int:
        """Return how many messages were sent."""
        ...

    def end(self, close: Close) -> None:
        """End the connection without waiting."""
        ...

    def ending(self) -> tuple[int, Reason, str]:
        """Return the close code, the reason, and who began the close: "relay", "client" or "network"."""
        ...

    def announce_restart(self, *, delay_ms: int) -> None:
        """Tell the client that the relay restarts, and after which delay to reconnect."""
        ...

    def check(self, now: float, *, ping: bool) -> None:
        """Do what is due at `now` (`time.monotonic`), for the heartbeat loop."""
        ...


class Registry:
    """Open connections by session reference, the oldest first.

    A session may have `per_session` of them. If there is one more, it replaces the oldest. With `replace` False it is
    refused instead (see `reserve`). With `places` the connections of all nodes count, and the engine decides.
    """

    def __init__(
        self, *, per_session: int, replace: bool, closing_queue: AdmissionQueue, places: Places | None = None
    ) -> None:
        self._per_session = per_session
        self._replace = replace
        self._closing_queue = closing_queue
        self._places = places
        self._by_session: dict[str, dict[Connection, None]] = {}
        self._reserved: dict[Connection, str] = {}
        self._replaced: set[Connection] = (
            set()
        )  # of the reserved ones, those that another node's has replaced
        self.connections: dict[Connection, tuple[Admitted, ...]] = {}
        """With the tokens that opened and refreshed them. The revocation of each of these ends the connection."""
        self.by_endpoint: Counter[str] = Counter()
        """The number of connections of each endpoint. It is kept up to date, because a count of 20,000 takes 3 ms."""

    def update(self, *, per_session: int, replace: bool) -> None:
        """Use another limit from now on. Open connections stay open until their session opens the next one."""
        self._per_session = per_session
        self._replace = replace

    def reserve(self, connection: Connection, session_ref: str) -> Place | None:
        """Reserve a place in a session until `add` or `release`. Return the one to take over all nodes, if they count.

        This comes before the token is used up: a client that finds no place can use its token later. Without
        reservations, a dozen connections at once would all see the last place free, and all but one would lose their
        tokens.

        Raises:
            NoPlaceError: if there is none.
        """
        own = self._by_session.get(session_ref, {})
        if self._places is not None:
            if connection not in own:
                self._reserved[connection] = session_ref
            return Place(
                session=session_ref,
                connection=str(connection.id),
                most=self._per_session,
                replaces=self._replace,
            )
        if self._replace or connection in own:
            return None
        reserved = sum(ref == session_ref for ref in self._reserved.values())
        if len(own) + reserved >= self._per_session:
            raise NoPlaceError
        if connection.phase not in GONE:  # `release` was called already for one that has gone
            self._reserved[connection] = session_ref
        return None

    def release(self, connection: Connection) -> None:
        """Give up a reserved place. To call it twice is fine."""
        self._replaced.discard(connection)
        session_ref = self._reserved.pop(connection, None)
        if session_ref is not None and self._places is not None:
            self._places.leave(session_ref, str(connection.id))

    def add(self, connection: Connection, admitted: Admitted, *, reserved: Connection | None = None) -> None:
        """Add a connection to a session: its first one, or after a refresh a further one.

        If the session has too many connections then, its oldest is ended. `reserved` is the connection for which the
        place was reserved, if it is another object with the same id.
        """
        self._reserved.pop(reserved or connection, None)
        session_ref = admitted.claims.session_ref
        own = self._by_session.setdefault(session_ref, {})
        own[connection] = None
        before = self.connections.get(connection, ())
        if not before:  # a refresh keeps the endpoint
            self.by_endpoint[admitted.attempt.endpoint.name] += 1
        # the first token and the newest of each session: a client that refreshes often must not fill the memory
        kept = (one for one in before[1:] if one.claims.session_ref != session_ref)
        self.connections[connection] = (*before[:1], *kept, admitted)
        if self._places is None:
            while len(own) > self._per_session:
                self._end_replaced(next(iter(own)))
        else:
            self._end_if_replaced(reserved or connection, connection)

    def end_replaced(self, session_ref: str, connection_id: str) -> bool:
        """End a connection whose place another one of its session has taken. Return False if it is of another node."""
        for connection in self._by_session.get(session_ref, {}):
            if str(connection.id) == connection_id:
                self._end_replaced(connection)
                return True
        for connection, ref in self._reserved.items():
            if ref == session_ref and str(connection.id) == connection_id:
                self._replaced.add(connection)  # `add` ends it
                return True
        return False

    def _end_if_replaced(self, reserved: Connection, connection: Connection) -> None:
        if reserved in self._replaced:
            self._replaced.remove(reserved)
            self._end_replaced(connection)

    def _end_replaced(self, connection: Connection) -> None:
        self.remove(connection)
        connection.end(close_for(Reason.CONNECTION_REPLACED))

    def places(self, size: int) -> Iterator[Sequence[tuple[str, str, float]]]:
        """Yield the taken places in parts of about `size`: session, connection, and when it was opened.

        A part is made when it is asked for, so it has no connection that has gone by then.
        """
        part: list[tuple[str, str, float]] = []
        for connection in list(self.connections):
            sessions = {one.claims.session_ref for one in self.connections.get(connection, ())}
            part += [(ref, str(connection.id), connection.opened_at) for ref in sessions]
            if len(part) >= size:
                yield part
                part = []
        if part:
            yield part

    def remove(self, connection: Connection) -> None:
        """Remove a connection. To call it twice is fine."""
        tokens = self.connections.pop(connection, ())
        if tokens:
            self.by_endpoint[tokens[0].attempt.endpoint.name] -= 1
        for session_ref in {one.claims.session_ref for one in tokens}:
            own = self._by_session[session_ref]
            own.pop(connection, None)
            if not own:
                del self._by_session[session_ref]
            if self._places is not None:
                self._places.leave(session_ref, str(connection.id))

    def find(self, target: Target) -> list[Connection]:
        """Return the connections that a revocation of `target` ends."""
        rows = self.connections.items()
        match target.kind:
            case Kind.SESSION:
                return list(self._by_session.get(target.name, ()))
            case Kind.USER:  # a refresh keeps the user
                return [one for one, tokens in rows if tokens[0].claims.subject == target.name]
            case Kind.TOKEN:
                return [one for one, tokens in rows for each in tokens if each.claims.jti == target.name]
            case Kind.KEY:
                return [one for one, tokens in rows if any(each.kid == target.name for each in tokens)]

    def sessions_of(self, user: str, until: float = math.inf) -> set[str]:
        """Return the references of the sessions with which a user is connected since that time (Unix seconds)."""
        connections = self.find(Target(kind=Kind.USER, name=user))
        return {
            one.claims.session_ref
            for connection in connections
            if connection.opened_at <= until
            for one in self.connections[connection]
        }

    def end(self, target: Target) -> int:
        """Close the connections of `target`, and return their number.

        The close code is 4501: the client must not reconnect. For a key it is 4001, and the client may come back with a
        new token. Of many connections some are closed in the next turns of the event loop, in milliseconds.
        """
        reason = Reason.KEY_REVOKED if target.kind is Kind.KEY else Reason.SESSION_REVOKED
        found = self.find(target)
        for connection in found:
            self._closing_queue.submit(partial(_end, connection, reason))
        return len(found)

    def after(self, cursor: ConnectionCursor, *, limit: int) -> list[tuple[Connection, Admitted]]:
        """Return the `limit` oldest connections that are younger than `cursor`, with the tokens that opened them."""
        younger = (one for one in self.connections if (one.opened_at, one.id.int) > cursor)
        found = heapq.nsmallest(limit, younger, key=lambda one: (one.opened_at, one.id.int))
        return [(one, self.connections[one][0]) for one in found]


def _end(connection: Connection, reason: Reason) -> bool:
    connection.end(close_for(reason))
    return True
