"""What a connection made of its grants, for its last record: which of them it used, and for which channels.

Counted when it subscribes, so that a delivery costs nothing. A grant is used by a subscription that it allows; whether
a price came while it lasted is the publisher's doing and not the reader's.
"""

from collections.abc import Sequence
from typing import Any

from relay.core.events import MAX_LIST
from relay.core.scope import Scope


class Usage:
    """The subscriptions of one connection, over all tokens that it showed."""

    __slots__ = ("_count", "_names", "_scope", "_used")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._used: dict[str, None] = {}
        self._names: dict[str, None] = {}
        self._count = 0

    def widen(self, scope: Scope) -> None:
        """Add what another token grants: the connection may end with it, and either may go unused."""
        self._scope = Scope(tuple(dict.fromkeys((*self._scope.patterns, *scope.patterns))))

    def add(self, names: Sequence[str]) -> None:
        """Count an accepted subscription to channels or patterns."""
        self._count += len(names)
        for name in names:
            if len(self._names) < MAX_LIST:  # what a record keeps of a list; the rest is only counted
                self._names[name] = None
            for pattern in self._scope.narrowest(name):
                self._used[pattern] = None

    def described(self) -> dict[str, Any]:
        """Return the fields for the record: names subscribed to, how often, and each grant as used or unused."""
        return {
            "channels": list(self._names),
            "subscriptions": self._count,
            "scopes": {
                "used": list(self._used),
                "unused": [pattern for pattern in self._scope.patterns if pattern not in self._used],
            },
        }
