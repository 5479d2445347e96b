"""The live connections of this node, by session: so that a logout can find them and a session can't have a thousand."""

from relay.core.closes import close_for
from relay.core.errors import Reason
from relay.stream.connection import StreamConnection


class Registry:
    """Open connections by session reference, in the order in which they came."""

    def __init__(self, *, per_session: int) -> None:
        self._per_session = per_session
        self._by_session: dict[str, dict[StreamConnection, None]] = {}
        self.connections: dict[StreamConnection, None] = {}

    def add(self, connection: StreamConnection, session_ref: str) -> None:
        """Add a connection; the session's oldest makes room if there are too many."""
        own = self._by_session.setdefault(session_ref, {})
        own[connection] = None
        self.connections[connection] = None
        while len(own) > self._per_session:
            oldest = next(iter(own))
            self.remove(oldest, session_ref)
            oldest.end(close_for(Reason.CONNECTION_REPLACED))

    def remove(self, connection: StreamConnection, session_ref: str) -> None:
        """Forget a connection. Twice is fine."""
        self.connections.pop(connection, None)
        own = self._by_session.get(session_ref, {})
        own.pop(connection, None)
        if not own:
            self._by_session.pop(session_ref, None)

    def end_session(self, session_ref: str) -> int:
        """Close all connections of a session with 4501; returns how many."""
        own = list(self._by_session.get(session_ref, ()))
        for connection in own:
            connection.end(close_for(Reason.SESSION_REVOKED))
        return len(own)
