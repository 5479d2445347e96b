"""Sessions that the backend checks: the relay calls its /auth/me with the credential as a Bearer token.

It suits a backend with opaque tokens, and a relay without the backend's key. A call is expensive, and anybody can cause
one by sending a token, so the calls are bounded:

- Requests with the same credential share one call.
- An answer is cached for a few seconds, a session and a refusal alike.
- At most `MAX_CHECKS` calls run at one time.

Without an answer in time there is no session: the caller answers 503.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from relay.core import strict_json
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.jws import Compact, parse_compact
from relay.net.backend_faults import backend_fault, describe, refuse_status
from relay.net.http_client import UrlClient, UrlResponse
from relay.sessions.base import Ended, NotMine, Session
from relay.sessions.cache import SessionCache
from relay.sessions.claims import (
    DEFAULT_NAMES,
    LEEWAY_S,
    ClaimNames,
    ended,
    invalid,
    is_unix_seconds,
    refused,
    to_session,
)
from relay.sessions.cookies import is_cookie_value
from relay.sessions.signed import MAX_CREDENTIAL_BYTES, is_scoped, scoped_refusal

MAX_CHECKS: Final = 64
"""Most calls at one time. With them a backend that answers in 5 ms handles 12,000 calls a second."""

MAX_WAITING: Final = 20_000
"""Most credentials that wait for a call, as many as the cache has entries. Further requests are refused at once."""


_NAME: Final = "session.upstream.me"
_EXPECTED: Final = "200 with the session's claims as a JSON object, or 401"
NO_SESSION: Final = frozenset({204, 302, 303, 307, 401, 404, 410})
"""Statuses that mean: there is no such session. Frameworks answer with a redirect to their log-in page, or with
nothing. 301 and 308 are none of them: they say that the URL is a wrong one for everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamOptions:
    """`me` is the URL to call. `timeout_s` is for a whole check, with the wait for a call. `cache_s` is at most 5."""

    me: str
    ref_key: bytes = field(repr=False)
    timeout_s: float = 2.0
    cache_s: float = 5.0
    claims: ClaimNames = DEFAULT_NAMES
    leeway_s: float = LEEWAY_S


class UpstreamVerifier:
    """A `SessionVerifier` that calls the backend. Belongs to one event loop."""

    def __init__(self, options: UpstreamOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._address = UrlClient(
            options.me, name=_NAME, setting=_NAME, timeout_s=options.timeout_s, connections=MAX_CHECKS
        )
        self._cache = SessionCache(keep_s=options.cache_s, clock=clock)
        self._shared: dict[bytes, asyncio.Task[Session | Refusal | UnavailableError]] = {}
        self._tasks: set[asyncio.Task[Session | Refusal | UnavailableError]] = set()
        self._call_slots = asyncio.Semaphore(MAX_CHECKS)
        self._forgotten = 0

    async def verify(
        self,
        credential: str,
        *,
        now: float,
        grace_s: float = 0,  # noqa: ARG002  # the port has it; see below
        caller: str = "",  # noqa: ARG002  # the port has it
    ) -> Session | Refusal:
        """See `SessionVerifier.verify`. A credential that the backend refuses is `session_expired`: a refresh may help.

        There is no grace time: the backend does not tell whose token an expired one was.
        """
        if len(credential) > MAX_CREDENTIAL_BYTES:
            return invalid(f"It has more than {MAX_CREDENTIAL_BYTES} bytes.")
        if not is_cookie_value(
            credential
        ):  # wider than a Bearer token: other frameworks' sessions have a % or a colon
            return NotMine(detail="A cookie or a header can't carry it.")
        token = parse_compact(credential, max_bytes=MAX_CREDENTIAL_BYTES)
        if isinstance(token, Compact) and is_scoped(token.header):
            return scoped_refusal()
        digest = self._cache.digest(credential)
        if (cached := self._cache.get(digest)) is not None:
            return cached
        check = self._shared.get(digest) or self._start(digest, credential, token, now)
        await asyncio.wait(
            {check}
        )  # unlike `await check`, a cancelled caller does not cancel it for the others
        answer = UnavailableError(Reason.SERVER_STOPPING) if check.cancelled() else check.result()
        if isinstance(answer, UnavailableError):
            # a new exception for each caller, so that each has its own traceback
            raise UnavailableError(answer.reason, str(answer), setting=answer.setting)
        return answer

    def forget(self, ref: str) -> None:
        """See `SessionVerifier.forget`."""
        self._cache.forget(ref)
        # Which session a running call is about is not known yet, and it may have begun before the backend knew of the
        # log-out. So no running call is cached, or shared with later requests.
        self._forgotten += 1
        self._shared.clear()

    async def aclose(self) -> None:
        """See `SessionVerifier.aclose`. Waiting callers get an `UnavailableError`."""
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
                Reason.BACKEND_UNAVAILABLE, f"{MAX_WAITING} sessions wait for {_NAME}.", setting=_NAME
            )
        check = asyncio.create_task(self._check(digest, credential, token, now))
        self._shared[digest] = check
        self._tasks.add(check)

        def finished(done: asyncio.Task[Session | Refusal | UnavailableError]) -> None:
            self._tasks.discard(done)
            if self._shared.get(digest) is done:
                del self._shared[digest]

        check.add_done_callback(finished)
        return check

    async def _check(
        self, digest: bytes, credential: str, token: Compact | Refusal, now: float
    ) -> Session | Refusal | UnavailableError:
        """Call the backend and cache its answer. Errors are returned, because no caller may be waiting any more."""
        forgotten_before = self._forgotten
        try:
            async with asyncio.timeout(self._options.timeout_s), self._call_slots:
                answer = self._read(await self._address.get(bearer=credential), token, now)
        except UnavailableError as error:
            return error
        except TimeoutError:
            return UnavailableError(
                Reason.BACKEND_UNAVAILABLE,
                f"{_NAME} did not answer within {self._options.timeout_s:g} s.",
                setting="session.upstream.timeout_s",
            )
        if forgotten_before == self._forgotten:
            self._cache.put(digest, answer)
        return answer

    def _read(self, answer: UrlResponse, token: Compact | Refusal, now: float) -> Session | Refusal:
        payload = token.payload if isinstance(token, Compact) else {}
        if answer.status in NO_SESSION:
            gone = _no_session(answer.status, token, now=now, leeway_s=self._options.leeway_s)
            return refused(gone, payload, self._options.claims)
        if answer.status == 403:
            forbidden = invalid(f"{_NAME} answered 403.", setting=_NAME)
            return refused(forbidden, payload, self._options.claims)
        if not 200 <= answer.status < 300:
            raise refuse_status(_NAME, answer, expected=_EXPECTED, setting=_NAME)
        try:
            claims = strict_json.parse_object(answer.body)
        except ValueError:
            raise backend_fault(_NAME, came=describe(answer), expected=_EXPECTED, setting=_NAME) from None
        session = to_session(
            claims,
            self._options.claims,
            ref_key=self._options.ref_key,
            now=now,
            leeway_s=self._options.leeway_s,
        )
        if isinstance(session, Refusal):
            # the backend has accepted the token, so what it says of the user is its fault and not the browser's
            raise backend_fault(
                _NAME,
                came="a JSON object that describes no session",
                expected=str(session).rstrip("."),
                setting="session.claims",
            )
        if isinstance(token, Compact):
            # the backend has accepted the token, so its own claims can be trusted
            issued_at, ends = token.payload.get("iat"), token.payload.get("exp")
            began = float(issued_at) if is_unix_seconds(issued_at) else session.token_issued_at
            session = msgspec.structs.replace(
                session,
                issued_at=session.issued_at or began or 0.0,
                token_issued_at=began,
                token_expires_at=float(ends) if is_unix_seconds(ends) else session.token_expires_at,
            )
        if session.issued_at > now + self._options.leeway_s:
            # No revocation would be newer. An unknown time counts as older than each.
            session = msgspec.structs.replace(session, issued_at=0.0)
        return session


def _no_session(status: int, token: Compact | Refusal, *, now: float, leeway_s: float) -> Refusal:
    """Return the refusal of a credential that the backend does not know.

    Only a token that says itself that it is over has ended for certain. The backend may have lost its sessions for a
    moment, or the setting may name a wrong path.
    """
    detail = f"{_NAME} answered {status}: there is no such session."
    if isinstance(token, Compact):
        ends = token.payload.get("exp")
        if is_unix_seconds(ends) and ends + leeway_s <= now:
            return ended(Ended.EXPIRED, detail, setting=_NAME)
    return Refusal(reason=Reason.SESSION_EXPIRED, detail=detail, setting=_NAME)
