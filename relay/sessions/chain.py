"""Several session verifiers in the order of `session.verifier`. The first that knows the credential's kind decides.

An application needs several while it moves from one kind of session to another, or if its server-side callers send
JWTs and its browsers an encrypted cookie.
"""

from collections.abc import Sequence

from relay.core.errors import Reason, Refusal
from relay.sessions.base import NotMine, Session, SessionVerifier


class VerifierChain:
    """A `SessionVerifier` made of others."""

    def __init__(self, verifiers: Sequence[SessionVerifier]) -> None:
        self._verifiers = tuple(verifiers)

    async def verify(
        self, credential: str, *, now: float, grace_s: float = 0, caller: str = ""
    ) -> Session | Refusal:
        """See `SessionVerifier.verify`. Never returns `NotMine`, because no other verifier follows."""
        details, settings = [], []
        for verifier in self._verifiers:
            answer = await verifier.verify(credential, now=now, grace_s=grace_s, caller=caller)
            if not isinstance(answer, NotMine):
                return answer
            details.append(str(answer))
            settings.append(answer.setting)
        # with several verifiers, their list decides
        setting = settings[0] if len(settings) == 1 else ""
        return Refusal(reason=Reason.SESSION_INVALID, detail=" ".join(details), setting=setting)

    def forget(self, ref: str) -> None:
        """See `SessionVerifier.forget`."""
        for verifier in self._verifiers:
            verifier.forget(ref)

    async def aclose(self) -> None:
        """See `SessionVerifier.aclose`."""
        for verifier in self._verifiers:
            await verifier.aclose()
