"""A cache of the backend's recent answers about sessions."""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable

from relay.core.errors import Refusal
from relay.sessions.base import Session

MAX_ENTRIES = 20_000
"""Most entries: a burst of 15,000 browsers and a reserve. They take 20 MB at most, a kilobyte each."""


class SessionCache:
    """Sessions and refusals by the credential's digest. All live equally long; when full, the oldest is dropped."""

    def __init__(self, *, keep_s: float, clock: Callable[[], float]) -> None:
        """`keep_s` is the life of an entry in seconds; 0 switches the cache off. `clock` is monotonic, in seconds."""
        self._keep_s = keep_s
        self._clock = clock
        self._key = secrets.token_bytes(32)
        # all entries live equally long, so the oldest one expires first
        self._entries: OrderedDict[bytes, tuple[float, Session | Refusal]] = OrderedDict()

    def digest(self, credential: str) -> bytes:
        """Return the cache key of `credential`.

        The credential itself is not kept: a memory dump, a debugger or a repr must show nothing that opens an account.
        The digest's key is a secret of this process, so the digest can't be compared with other data.
        """
        return hashlib.blake2b(credential.encode(), key=self._key, digest_size=16).digest()

    def get(self, digest: bytes) -> Session | Refusal | None:
        """Return the cached answer, or None if there is none or it has expired."""
        until, answer = self._entries.get(digest, (0.0, None))
        return answer if self._clock() < until else None

    def put(self, digest: bytes, answer: Session | Refusal) -> None:
        """Add `answer`, and drop expired and surplus entries."""
        now = self._clock()
        self._entries[digest] = (now + self._keep_s, answer)
        self._entries.move_to_end(digest)
        while self._entries:
            oldest, (until, _) = next(iter(self._entries.items()))
            if until > now and len(self._entries) <= MAX_ENTRIES:
                break
            del self._entries[oldest]

    def forget(self, ref: str) -> None:
        """Drop every entry of the session with this reference."""
        gone = [
            digest
            for digest, (_, answer) in self._entries.items()
            if isinstance(answer, Session) and answer.ref == ref
        ]
        for digest in gone:
            del self._entries[digest]
