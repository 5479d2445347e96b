"""Sessions that only the backend can judge: its /auth/me is asked with the credential as a Bearer token.

A relay that holds no key of the backend's, or a backend with opaque tokens, leaves no other way. Asking is dear
and a stranger can make us ask, so: one call for one token however many wait for it, an answer is good for a few
seconds whether it was yes or no, and only so many calls run at once. No answer in time is no session: 503, never
a token.

A log-out cuts through all of it. What was kept about the session is dropped, and a call that was under way then is
not kept and no longer shared: it may have begun before the backend knew.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from relay.core import strict_json
from relay.core.bearer import is_bearer_token
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.jws import Compact, parse_compact
from relay.net.http_client import UrlClient, UrlResponse
from relay.sessions.base import NotMine, Session
from relay.sessions.cache import Answers
from relay.sessions.claims import DEFAULT_NAMES, ClaimNames, invalid, is_unix_seconds, to_session
from relay.sessions.signed import MAX_CREDENTIAL_BYTES, is_scoped

MAX_CHECKS: Final = 64
"""Calls at once: a backend that answers in 5 ms takes 12,000 a second with them."""

MAX_WAITING: Final = 20_000
"""Tokens that may wait for a call: as many as are kept answers. Beyond it callers are refused at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamOptions:
    """Whom to ask: `me` is the URL, `timeout_s` is for a whole check, waiting included, `cache_s` at most 5."""

    me: str
    ref_key: bytes = field(repr=False)
    timeout_s: float = 2.0
    cache_s: float = 5.0
    claims: ClaimNames = DEFAULT_NAMES


class UpstreamVerifier:
    """A `SessionVerifier` that asks the backend. Belongs to one event loop."""

    def __init__(self, options: UpstreamOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._address = UrlClient(
            options.me, name="session.upstream.me", timeout_s=options.timeout_s, connections=MAX_CHECKS
        )
        self._answers = Answers(keep_s=options.cache_s, clock=clock)
        self._flights: dict[bytes, asyncio.Task[Session | Refusal | UnavailableError]] = {}
        self._tasks: set[asyncio.Task[Session | Refusal | UnavailableError]] = set()
        self._places = asyncio.Semaphore(MAX_CHECKS)
        self._forgotten = 0

    async def verify(
        self,
        credential: str,
        *,
        now: float,
        grace_s: float = 0,  # noqa: ARG002  # the port's; see below
    ) -> Session | Refusal:
        """See `SessionVerifier.verify`. What the backend refuses is `session_expired`: a refresh may mend it.

        There is no grace: whose token it was, the backend does not say any more.
        """
        if len(credential) > MAX_CREDENTIAL_BYTES:
            return invalid(f"It has more than {MAX_CREDENTIAL_BYTES} bytes.")
        if not is_bearer_token(credential):
            return NotMine(detail="It is nothing that a Bearer header can carry.")
        token = parse_compact(credential, max_bytes=MAX_CREDENTIAL_BYTES)
        if isinstance(token, Compact) and is_scoped(token.header):
            return invalid("It is a scoped token, and those are never a session.")
        digest = self._answers.digest(credential)
        if (kept := self._answers.get(digest)) is not None:
            return kept
        flight = self._flights.get(digest) or self._start(digest, credential, token, now)
        await asyncio.wait({flight})  # who gives up waiting does not end it for the others
        answer = UnavailableError(Reason.SERVER_STOPPING) if flight.cancelled() else flight.result()
        if isinstance(answer, UnavailableError):
            # an exception each, with a traceback of its own
            raise UnavailableError(answer.reason, str(answer))
        return answer

    def forget(self, ref: str) -> None:
        """See `SessionVerifier.forget`."""
        self._answers.forget(ref)
        # whose session a call under way is about is not known yet
        self._forgotten += 1
        self._flights.clear()

    async def aclose(self) -> None:
        """See `SessionVerifier.aclose`. Those who wait get an `UnavailableError`."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._address.aclose()

    def _start(
        self, digest: bytes, credential: str, token: Compact | Refusal, now: float
    ) -> asyncio.Task[Session | Refusal | UnavailableError]:
        if len(self._tasks) >= MAX_WAITING:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"{MAX_WAITING} sessions wait for session.upstream.me."
            )
        flight = asyncio.create_task(self._check(digest, credential, token, now))
        self._flights[digest] = flight
        self._tasks.add(flight)

        def landed(done: asyncio.Task[Session | Refusal | UnavailableError]) -> None:
            self._tasks.discard(done)
            if self._flights.get(digest) is done:
                del self._flights[digest]

        flight.add_done_callback(landed)
        return flight

    async def _check(
        self, digest: bytes, credential: str, token: Compact | Refusal, now: float
    ) -> Session | Refusal | UnavailableError:
        """Ask, and keep the answer. Errors are returned, because there may be nobody left to raise them to."""
        begun = self._forgotten
        try:
            async with asyncio.timeout(self._options.timeout_s), self._places:
                answer = self._read(await self._address.get(bearer=credential), token, now)
        except UnavailableError as error:
            return error
        except TimeoutError:
            return UnavailableError(
                Reason.BACKEND_UNAVAILABLE,
                f"session.upstream.me did not answer within {self._options.timeout_s:g} s.",
            )
        if begun == self._forgotten:
            self._answers.put(digest, answer)
        return answer

    def _read(self, answer: UrlResponse, token: Compact | Refusal, now: float) -> Session | Refusal:
        if answer.status == 401:
            # not "invalid", which would take the refresh cookie along
            return Refusal(reason=Reason.SESSION_EXPIRED, detail="session.upstream.me answered 401.")
        if answer.status == 403:
            return invalid("session.upstream.me answered 403.")
        if answer.status != 200:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"session.upstream.me answered {answer.status}."
            )
        try:
            claims = strict_json.parse_object(answer.body)
        except ValueError as error:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"session.upstream.me answered with no JSON object: {error}."
            ) from None
        session = to_session(
            claims, self._options.claims, ref_key=self._options.ref_key, now=now, number_ids=True
        )
        if isinstance(session, Refusal):
            return session
        if session.issued_at == 0.0 and isinstance(token, Compact):
            # the backend answered for the token as a whole, so what it says of itself is believed
            issued_at = token.payload.get("iat")
            if is_unix_seconds(issued_at):
                session = replace(session, issued_at=float(issued_at))
        # one from the future would outlive every revocation
        return replace(session, issued_at=min(session.issued_at, now))
