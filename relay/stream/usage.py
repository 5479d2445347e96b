"""Which of its grants a connection has used, and for which channels. It is for the connection's last audit event.

A grant is used by a subscription that it allows. Whether a price came for it depends on the publisher. So only
subscriptions are counted, and a delivery costs nothing.
"""

from collections.abc import Sequence
from typing import Any

from relay.core.events import MAX_LIST
from relay.core.scope import Scope


class Usage:
    """The subscriptions of one connection, with all of its tokens."""

    __slots__ = ("_count", "_names", "_scope", "_used")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._used: dict[str, None] = {}
        self._names: dict[str, None] = {}
        self._count = 0

    def widen(self, scope: Scope) -> None:
        """Add the grants of a token that refreshed the connection. The grants of each token may stay unused."""
        self._scope = Scope(tuple(dict.fromkeys((*self._scope.patterns, *scope.patterns))))

    def add(self, names: Sequence[str]) -> None:
        """Count an accepted subscription to channels or patterns."""
        self._count += len(names)
        for name in names:
            if (
                len(self._names) < MAX_LIST
            ):  # an audit event keeps no more of a list; the others are only counted
                self._names[name] = None
            for pattern in self._scope.narrowest(name):
                self._used[pattern] = None

    def record(self) -> dict[str, Any]:
        """Return the audit fields: the names, the number of subscriptions, and the used and unused grants."""
        return {
            "channels": list(self._names),
            "subscriptions": self._count,
            "scopes": {
                "used": list(self._used),
                "unused": [pattern for pattern in self._scope.patterns if pattern not in self._used],
            },
        }
