"""Several verifiers in one place, asked in the order of `session.verifier`.

Applications move from one kind of session to another while users are logged in with both, and server-side callers
have JWTs where browsers have an encrypted cookie. The first verifier that knows the credential's kind decides.
"""

from collections.abc import Sequence

from relay.core.errors import Reason, Refusal
from relay.sessions.base import NotMine, Session, SessionVerifier


class InOrder:
    """A `SessionVerifier` made of others."""

    def __init__(self, verifiers: Sequence[SessionVerifier]) -> None:
        self._verifiers = tuple(verifiers)

    async def verify(self, credential: str, *, now: float, grace_s: float = 0) -> Session | Refusal:
        """See `SessionVerifier.verify`. Never answers `NotMine` itself: there is nobody behind it."""
        strangers = []
        for verifier in self._verifiers:
            answer = await verifier.verify(credential, now=now, grace_s=grace_s)
            if not isinstance(answer, NotMine):
                return answer
            strangers.append(str(answer))
        return Refusal(reason=Reason.SESSION_INVALID, detail=" ".join(strangers))

    def forget(self, ref: str) -> None:
        """See `SessionVerifier.forget`."""
        for verifier in self._verifiers:
            verifier.forget(ref)

    async def aclose(self) -> None:
        """See `SessionVerifier.aclose`."""
        for verifier in self._verifiers:
            await verifier.aclose()
