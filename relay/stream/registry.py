"""The live connections of this node, by session: so that a logout can find them and a session can't have a thousand."""

from relay.core.closes import close_for
from relay.core.errors import Reason
from relay.stream.connection import StreamConnection


class Registry:
    """Open connections by session reference, in the order in which they came.

    A session may have `per_session` of them. One more takes the place of the oldest, or with `replace` False is
    refused.
    """

    def __init__(self, *, per_session: int, replace: bool) -> None:
        self._per_session = per_session
        self._replace = replace
        self._by_session: dict[str, dict[StreamConnection, None]] = {}
        self.connections: dict[StreamConnection, tuple[str, ...]] = {}  # with the sessions that can end them

    def is_full(self, session_ref: str) -> bool:
        """Tell whether one connection more has to be refused."""
        return not self._replace and len(self._by_session.get(session_ref, ())) >= self._per_session

    def add(self, connection: StreamConnection, session_ref: str) -> None:
        """Add a connection to a session, its first or (after a refresh) a further one.

        The session's oldest makes room if there are too many.
        """
        own = self._by_session.setdefault(session_ref, {})
        own[connection] = None
        before = self.connections.get(connection, ())
        if session_ref not in before:
            self.connections[connection] = (*before, session_ref)
        while len(own) > self._per_session:
            oldest = next(iter(own))
            self.remove(oldest)
            oldest.end(close_for(Reason.CONNECTION_REPLACED))

    def remove(self, connection: StreamConnection) -> None:
        """Forget a connection. Twice is fine."""
        for session_ref in self.connections.pop(connection, ()):
            own = self._by_session[session_ref]
            own.pop(connection, None)
            if not own:
                del self._by_session[session_ref]

    def end_session(self, session_ref: str) -> int:
        """Close all connections of a session with 4501; returns how many."""
        own = list(self._by_session.get(session_ref, ()))
        for connection in own:
            connection.end(close_for(Reason.SESSION_REVOKED))
        return len(own)
