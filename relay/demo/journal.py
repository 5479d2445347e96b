"""What the demo's backend received and sent, for the account page. A token is shown by a fingerprint only.

No real backend has such a route: it is how the page can show what the relay made of its calls.
"""

import hashlib
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_ENTRIES = 200
SHOWN = 50
"""Entries of one session that the page gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSeen:
    """A token that came or went. `fingerprint` is the beginning of its SHA-256, from which nobody gets the token."""

    use: str
    fingerprint: str
    expires_at: int

    def shown(self) -> dict[str, object]:
        """Return it as JSON."""
        return {"use": self.use, "fingerprint": self.fingerprint, "expires_at": self.expires_at}


def fingerprint(token: str) -> str:
    """Return what tells tokens apart."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


class Journal:
    """The last requests of all sessions, in memory."""

    def __init__(self) -> None:
        self._entries: deque[tuple[str, dict[str, object]]] = deque(maxlen=MAX_ENTRIES)

    def note(
        self,
        session: str,
        *,
        request: str,
        headers: Mapping[str, str],
        bearer: TokenSeen | None,
        status: int,
        body: object,
        issued: TokenSeen | None,
    ) -> None:
        """Add a request of `session`, with the paths of the fields in the answer's `body`."""
        entry = {
            "at": int(time.time() * 1000),
            "request": request,
            "bearer": bearer and bearer.shown(),
            "cookie": "cookie" in headers,
            "status": status,
            "sent": field_paths(body),
            "issued": issued and issued.shown(),
        }
        self._entries.append((session, entry))

    def of(self, session: str) -> list[dict[str, object]]:
        """Return the last requests of `session`, oldest first."""
        return [entry for owner, entry in self._entries if owner == session][-SHOWN:]


def field_paths(value: Any, path: str = "") -> list[str]:
    """Return the paths of all fields in a JSON value, as `bff.proxy.routes.*.strip` writes them: `accounts.*.id`."""
    if isinstance(value, dict):
        children = [(f"{path}.{name}".lstrip("."), child) for name, child in value.items()]
    elif isinstance(value, list):
        children = [(f"{path}.*".lstrip("."), child) for child in value]
    else:
        return [path] if path else []
    return list(dict.fromkeys(found for name, child in children for found in field_paths(child, name)))
