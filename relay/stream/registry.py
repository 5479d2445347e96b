"""The live connections of this node, by session: so that a logout can find them and a session can't have a thousand.

What is rarer than a logout is not indexed: a user's, a token's or a key's connections are found by looking at all
of them: some 10 ms for 20,000, and an index would cost each connection 300 bytes for good.
"""

import heapq
from collections import Counter

from websockets.protocol import CLOSED

from relay.core.closes import close_for
from relay.core.errors import Reason
from relay.core.revocations import Kind, Target
from relay.stream.connection import StreamConnection
from relay.stream.gate import Admission

Place = tuple[float, int]
"""Where a connection stands by age: when it was opened, and its id as a number. It holds its place when others go."""


class Registry:
    """Open connections by session reference, in the order in which they came.

    A session may have `per_session` of them. One more takes the place of the oldest, or with `replace` False is
    refused (see `reserve`).
    """

    def __init__(self, *, per_session: int, replace: bool) -> None:
        self._per_session = per_session
        self._replace = replace
        self._by_session: dict[str, dict[StreamConnection, None]] = {}
        self._reserved: dict[StreamConnection, str] = {}
        self.connections: dict[StreamConnection, tuple[Admission, ...]] = {}
        """With the tokens that opened and refreshed them: each can end them."""
        self.by_endpoint: Counter[str] = Counter()
        """How many connections each endpoint has; kept, because to count 20,000 takes 3 ms."""

    def reserve(self, connection: StreamConnection, session_ref: str) -> bool:
        """Keep a place in a session until `add` or `release`; False if none is left, and none may be taken away.

        Before the token is used up: whoever finds no place can use it when there is one. Without the reservation a
        dozen that come at once would all find the last place free, and lose their tokens over it.
        """
        own = self._by_session.get(session_ref, {})
        if self._replace or connection in own:
            return True
        coming = sum(
            ref == session_ref for ref in self._reserved.values()
        )  # those whose claims are on their way
        if len(own) + coming >= self._per_session:
            return False
        if connection.protocol.state is not CLOSED:  # gone already: nobody would give the place back
            self._reserved[connection] = session_ref
        return True

    def release(self, connection: StreamConnection) -> None:
        """Give a reserved place back. Twice is fine."""
        self._reserved.pop(connection, None)

    def add(self, connection: StreamConnection, admission: Admission) -> None:
        """Add a connection to a session, its first or (after a refresh) a further one.

        The session's oldest makes room if there are too many.
        """
        self.release(connection)
        session_ref = admission.claims.session_ref
        own = self._by_session.setdefault(session_ref, {})
        own[connection] = None
        before = self.connections.get(connection, ())
        if not before:  # a refresh keeps the endpoint
            self.by_endpoint[admission.attempt.endpoint.name] += 1
        # the first, and the newest of each session: who refreshes for ever must not fill the memory
        kept = (one for one in before[1:] if one.claims.session_ref != session_ref)
        self.connections[connection] = (*before[:1], *kept, admission)
        while len(own) > self._per_session:
            oldest = next(iter(own))
            self.remove(oldest)
            oldest.end(close_for(Reason.CONNECTION_REPLACED))

    def remove(self, connection: StreamConnection) -> None:
        """Forget a connection. Twice is fine."""
        admissions = self.connections.pop(connection, ())
        if admissions:
            self.by_endpoint[admissions[0].attempt.endpoint.name] -= 1
        for session_ref in {one.claims.session_ref for one in admissions}:
            own = self._by_session[session_ref]
            own.pop(connection, None)
            if not own:
                del self._by_session[session_ref]

    def find(self, target: Target) -> list[StreamConnection]:
        """Return the connections that a revocation of `target` has to end."""
        rows = self.connections.items()
        match target.kind:
            case Kind.SESSION:
                return list(self._by_session.get(target.name, ()))
            case Kind.USER:  # a refresh keeps the user
                return [one for one, all_ in rows if all_[0].claims.subject == target.name]
            case Kind.TOKEN:
                return [one for one, all_ in rows for each in all_ if each.claims.jti == target.name]
            case Kind.KEY:
                return [one for one, all_ in rows if any(each.kid == target.name for each in all_)]

    def sessions_of(self, user: str) -> set[str]:
        """Return the references of the sessions with which a user is connected."""
        whose = Target(kind=Kind.USER, name=user)
        return {
            one.claims.session_ref for connection in self.find(whose) for one in self.connections[connection]
        }

    def end(self, target: Target) -> int:
        """Close all connections that `target` names; returns how many.

        With 4501, which is for good; those that a key's token opened or refreshed with 4001, and may come back.
        """
        reason = Reason.KEY_REVOKED if target.kind is Kind.KEY else Reason.SESSION_REVOKED
        found = self.find(target)
        for connection in found:
            connection.end(close_for(reason))
        return len(found)

    def after(self, place: Place, *, limit: int) -> list[tuple[StreamConnection, Admission]]:
        """Return the `limit` oldest connections that are younger than `place`, with the tokens that opened them."""
        younger = (one for one in self.connections if (one.opened_at, one.id.int) > place)
        found = heapq.nsmallest(limit, younger, key=lambda one: (one.opened_at, one.id.int))
        return [(one, self.connections[one][0]) for one in found]
