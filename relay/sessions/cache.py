"""What the backend said of a session some seconds ago, kept under a digest of the credential.

Never under the credential: a memory dump, a debugger or a repr of this must hold nothing that opens an account.
The digest is keyed with a secret of this process, so that it can't be compared with anything elsewhere either.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable

from relay.core.errors import Refusal
from relay.sessions.base import Session

MAX_ANSWERS = 20_000
"""Answers kept: 15,000 browsers in one burst and some; 20 MB at most, a kilobyte each."""


class Answers:
    """Sessions and refusals by digest, each for the same short time; the oldest goes when there are too many."""

    def __init__(self, *, keep_s: float, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds. With `keep_s` 0 nothing is kept."""
        self._keep_s = keep_s
        self._clock = clock
        self._key = secrets.token_bytes(32)
        # all live equally long, so the oldest entry is also the next to go
        self._entries: OrderedDict[bytes, tuple[float, Session | Refusal]] = OrderedDict()

    def digest(self, credential: str) -> bytes:
        """Return what stands for `credential` here."""
        return hashlib.blake2b(credential.encode(), key=self._key, digest_size=16).digest()

    def get(self, digest: bytes) -> Session | Refusal | None:
        """Return the answer, unless it is too old."""
        until, answer = self._entries.get(digest, (0.0, None))
        return answer if self._clock() < until else None

    def put(self, digest: bytes, answer: Session | Refusal) -> None:
        """Keep `answer` from now on, and let go what is too old or too many."""
        now = self._clock()
        self._entries[digest] = (now + self._keep_s, answer)
        self._entries.move_to_end(digest)
        while self._entries:
            oldest, (until, _) = next(iter(self._entries.items()))
            if until > now and len(self._entries) <= MAX_ANSWERS:
                break
            del self._entries[oldest]

    def forget(self, ref: str) -> None:
        """Drop every answer about the session with this reference."""
        gone = [
            digest
            for digest, (_, answer) in self._entries.items()
            if isinstance(answer, Session) and answer.ref == ref
        ]
        for digest in gone:
            del self._entries[digest]
