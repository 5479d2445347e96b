"""The server-side refresh: a new access token for a refresh cookie, with one call to the backend for all who ask.

Backends rotate refresh tokens, and many take the second use of one for theft and end the whole log-in. A page with
twenty requests on their way when its access token ends must therefore cause one call, over all processes. Each of the
twenty gets the same new tokens, and so does a request that arrives with the old cookie a little later.

What is known of a refresh token is in the state store (`relay.state.families`) and is read at each refresh. A token is
looked up by its keyed hash and never decoded: anybody can write a token that names somebody else's session.
"""

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from relay.audit.anomalies import Anomaly
from relay.audit.base import Auditor
from relay.bff.backend import Tokens
from relay.bff.sealed_tokens import Seal
from relay.core.closes import answer_for
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.net.addresses import network_of
from relay.sessions.base import Ended, EndedRefusal, Session
from relay.state.families import Families, Family, Over, Redeem, Refused, Renewal, Succeeded, Young

POLL_S = 0.05
"""Seconds between looks at the lease of another process."""
CHECK_WITHIN_S = 2.0
"""Seconds for the check of a new access token. What came is stored in any case: the old token is spent by then."""
LEASE_BEYOND_S = CHECK_WITHIN_S + 2.5
"""Seconds for which a lease outlives the backend's timeout, so that a late answer is still checked and stored."""
MOST_SHOWN = 100_000
"""Refresh tokens of which is remembered that the browser has them, about 100 bytes each."""
LEFT_S = 5
"""An access token that ends sooner is not handed out: it would be refused while the request is on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """A session with new tokens. `session` has the time of the log-in, whatever the new access token says."""

    tokens: Tokens = field(repr=False)
    session: Session


RedeemCall = Callable[[str, Client], Awaitable[Tokens | Refusal]]
"""Asks the backend for new tokens. A refusal means that the refresh token will never be good again.

Raises `UnavailableError` for everything else. With `answered` 2xx, the token was redeemed all the same.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOut:
    """A log-in that was ended. `untold` says why the backend was not told, if it should have been."""

    family: Family
    untold: Refusal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOptions:
    """The settings. `timeout_s` bounds a call to the backend, `keep_s` is the life of the refresh cookie.

    `unconfirmed_s` is for how long an old token is answered with a successor that the browser never showed.
    `reuse_ends_session` ends the whole log-in if a spent token comes.
    """

    timeout_s: float
    keep_s: float
    unconfirmed_s: float
    reuse_ends_session: bool
    ref_key: bytes = field(repr=False)


class Refresher:
    """Redeems refresh tokens. Create and use it on one event loop, and end it with `aclose`.

    `authenticate` checks an access token as the issuer does. Its second argument is the time of the log-in (Unix
    seconds, 0 if unknown): a refresh is no new log-in, so a revocation in between applies to it. `end_session` revokes
    a session by its reference and its user. `logout` tells the backend that a log-in is over, or that a refresh token
    which nobody will get is not needed; it returns why that failed.
    """

    def __init__(
        self,
        options: RefreshOptions,
        *,
        families: Families,
        redeem: RedeemCall,
        authenticate: Callable[[str, float], Awaitable[Session | Refusal]],
        end_session: Callable[[str, str], Awaitable[None]],
        logout: Callable[[str], Awaitable[Refusal | None]],
        auditor: Auditor,
    ) -> None:
        self._options = options
        self._families = families
        self._redeem = redeem
        self._authenticate = authenticate
        self._end_session = end_session
        self._logout = logout
        self._auditor = auditor
        self._flights: dict[tuple[bytes, float], asyncio.Task[Refreshed | Refusal]] = {}
        self._shown: OrderedDict[bytes, None] = OrderedDict()  # what the store knows of by now
        self._hash_key = hashlib.sha256(b"refresh-token\0" + options.ref_key).digest()
        self._seal = Seal(options.ref_key)

    async def begin(self, session: Session, refresh_token: str, client: Client) -> None:
        """Store the family of a log-in.

        Raises:
            UnavailableError: if the store did not answer. The log-in must fail then: it could never be ended.
        """
        await self._families.begin(
            self.key_of(refresh_token),
            _family_of(session),
            address=_network(client),
            keep_s=self._options.keep_s,
        )

    async def refresh(self, refresh_token: str, client: Client, *, young_s: float = 0) -> Refreshed | Refusal:
        """Return new tokens for a refresh cookie, or why there are none. Tokens younger than `young_s` are kept.

        An `EndedRefusal` means that the cookie will never be good again. Callers that come while a call runs get its
        result. A call that has begun is finished and stored, even if its callers have gone.

        Raises:
            UnavailableError: if the backend or the store gave no answer. The cookie is as good as before.
        """
        key = self.key_of(refresh_token)
        call = key, young_s
        flight = self._flights.get(call)
        if flight is None:
            flight = asyncio.create_task(self._run(refresh_token, key, client, young_s=young_s))
            self._flights[call] = flight
            flight.add_done_callback(lambda _done: self._flights.pop(call, None))
            flight.add_done_callback(_consume)  # its callers may all have gone
        return await asyncio.shield(flight)

    async def show(self, refresh_token: str) -> None:
        """Note that the browser has this cookie, so that its predecessors are soon spent. Cheap if that is known.

        Another process may have handed it out, so the store is told of each token that was not seen here before.

        Raises:
            UnavailableError: if the store did not answer.
        """
        key = self.key_of(refresh_token)
        if key in self._shown:
            return
        await self._families.show(key)
        self._shown[key] = None
        if len(self._shown) > MOST_SHOWN:
            self._shown.popitem(last=False)

    async def log_out(self, refresh_token: str) -> LoggedOut | None:
        """End the log-in of a refresh token for good: all its sessions here, and at the backend. Return whose it was.

        None: the token is not known here, and ends nothing. Anybody can make one up.

        Raises:
            UnavailableError: if the store did not answer.
        """
        key = self.key_of(refresh_token)
        family = await self._families.find(key)
        sessions = await self._families.end(
            key
        )  # an unknown one too: a call that runs with it must not succeed
        if family is None:
            return None
        for session in sessions:
            await self._end_session(session, family.subject)
        return LoggedOut(family=family, untold=await self._logout(refresh_token))

    async def aclose(self) -> None:
        """Wait for the calls that run: their results must be stored."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def _run(
        self,
        token: str,
        key: bytes,
        client: Client,
        *,
        by_successor: bool = False,
        is_copy: bool = False,
        young_s: float = 0,
    ) -> Refreshed | Refusal:
        """Do one refresh, or wait for the process that does it.

        `by_successor`: the token is the successor of the one that the browser sent. `is_copy`: from another address
        than the one that got the successor.
        """
        lease_s = self._options.timeout_s + LEASE_BEYOND_S
        began = time.monotonic()
        while time.monotonic() - began < 2 * lease_s:
            taken = await self._families.take(
                key,
                lease_s=lease_s,
                unconfirmed_s=self._options.unconfirmed_s,
                keep_s=self._options.keep_s,
                is_shown=not by_successor,
                young_s=young_s,
            )
            if isinstance(taken, Refused):
                return await self._refused(taken, client)
            if isinstance(taken, Succeeded):
                return await self._succeeded(taken, token, client, is_copy=is_copy)
            if isinstance(taken, Young):
                return Refusal(reason=Reason.SESSION_RENEWED, detail="The access token is new.")
            if isinstance(taken, Redeem):
                return await self._call(taken, token, key, client, is_copy=is_copy)
            await asyncio.sleep(min(taken.for_s, POLL_S))
        raise UnavailableError(
            Reason.BACKEND_UNAVAILABLE, "Another process refreshes this session and gave no answer in time."
        )

    async def _call(
        self, taken: Redeem, token: str, key: bytes, client: Client, *, is_copy: bool
    ) -> Refreshed | Refusal:
        """Call the backend under the lease, check what it sends, and store it.

        What came is stored before anything is refused for a passing cause: the old token is spent at the backend.
        """
        known = taken.family
        try:
            tokens = await self._redeem(token, client)
        except UnavailableError as error:
            if 200 <= error.answered < 300:
                await self._families.spend(key, taken.lease)
            else:
                await self._families.release(key, taken.lease)
            raise
        if isinstance(tokens, Refusal):
            await self._families.end(key)
            return await self._denied(tokens, Ended.REFRESH_REFUSED, known, client)
        session = await self._checked(tokens.access_token, known.logged_in_at if known else 0)
        if isinstance(session, EndedRefusal) and session.ended is Ended.REVOKED:
            await self._families.end(key)
            await self._throw_away(tokens)
            return await self._denied(Refusal(reason=session.reason), Ended.REVOKED, known, client)
        if isinstance(session, Session) and known is not None and known.subject != session.subject:
            await self._families.end(key)
            await self._throw_away(tokens)
            raise UnavailableError(
                Reason.BACKEND_FAULT, "The backend's new access token is of another user than the old one."
            )
        whole = replace(tokens, refresh_token=tokens.refresh_token or token)
        newest = self.key_of(whole.refresh_token or "")
        family = _family_of(session) if isinstance(session, Session) else known
        renewal = Renewal(
            successor=newest,
            sealed=self._seal.close(whole, key),
            family=family,
            address=_network(client),
            keep_s=self._options.keep_s,
        )
        if not await self._families.complete(key, taken.lease, renewal):
            await self._throw_away(tokens)
            return await self._denied(Refusal(reason=Reason.SESSION_REVOKED), Ended.REVOKED, known, client)
        session = _accepted(session)
        self._record(session, client, by="backend", is_copy=is_copy)
        return Refreshed(tokens=whole, session=session)

    async def _checked(self, access_token: str, logged_in_at: float) -> Session | Refusal | UnavailableError:
        """Check a new access token, within the time that the lease has for it."""
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                return await self._authenticate(access_token, logged_in_at)
        except UnavailableError as error:
            return error
        except TimeoutError:
            return UnavailableError(
                Reason.BACKEND_UNAVAILABLE, "The new access token was not checked in time."
            )

    async def _succeeded(
        self, taken: Succeeded, token: str, client: Client, *, is_copy: bool
    ) -> Refreshed | Refusal:
        """Answer a token that was redeemed already with the newest tokens of its family."""
        tokens = self._seal.open(taken.sealed, taken.sealed_for)
        assert tokens.refresh_token is not None
        is_copy = is_copy or taken.address != _network(client)
        session = await self._authenticate(tokens.access_token, taken.family.logged_in_at)
        if _is_over(session):
            # the browser lost the answer, slept, and comes back: the newest token is redeemed on its behalf
            if tokens.refresh_token == token:
                raise UnavailableError(
                    Reason.BACKEND_FAULT, "The backend's new access token has ended already."
                )
            return await self._run(
                tokens.refresh_token, taken.newest, client, by_successor=True, is_copy=is_copy
            )
        if isinstance(session, EndedRefusal) and session.ended is Ended.REVOKED:
            return await self._denied(Refusal(reason=session.reason), Ended.REVOKED, taken.family, client)
        session = _accepted(session)
        self._record(session, client, by="successor", is_copy=is_copy)
        return Refreshed(tokens=tokens, session=session)

    async def _refused(self, taken: Refused, client: Client) -> Refusal:
        family = taken.family
        if taken.over is Over.ENDED:
            return await self._denied(Refusal(reason=Reason.SESSION_REVOKED), Ended.REVOKED, family, client)
        lost = "The backend has redeemed the refresh token with an answer that can't be used, so it is not sent again."
        if (
            taken.over is Over.UNUSABLE
        ):  # a page that asks at once must not lose its cookies over one such answer
            raise UnavailableError(Reason.BACKEND_FAULT, lost, setting="bff.refresh.path")
        if taken.over is Over.LOST:  # the user logs in again: 502 until the cookie ends would help nobody
            refusal = Refusal(reason=Reason.REFRESH_REFUSED, detail=lost, setting="bff.refresh.path")
            return await self._denied(refusal, Ended.REFRESH_REFUSED, family, client)
        if self._options.reuse_ends_session and family.session:
            await self._end_session(family.session, family.subject)
        return await self._denied(Refusal(reason=Reason.REFRESH_SPENT), Ended.REFRESH_SPENT, family, client)

    async def _throw_away(self, tokens: Tokens) -> None:
        if tokens.refresh_token is not None:
            await self._logout(tokens.refresh_token)

    async def _denied(
        self, refusal: Refusal, why: Ended, family: Family | None, client: Client
    ) -> EndedRefusal:
        known = family is not None and bool(family.subject)
        await self._auditor.note_refusal(
            Event(
                action=Action.SESSION_REFRESH_DENIED,
                reason=refusal.reason,
                user=family.subject if family is not None and known else "",
                client=client,
                status=answer_for(refusal.reason).status,
                relay={"detail": str(refusal)}
                | ({"session": {"ref": family.session}} if family is not None and known else {}),
            )
        )
        return EndedRefusal(reason=refusal.reason, detail=refusal.detail, ended=why)

    def _record(self, session: Session, client: Client, *, by: str, is_copy: bool = False) -> None:
        self._auditor.note(
            Event(
                action=Action.SESSION_REFRESHED,
                user=session.subject,
                client=client,
                status=200,
                relay={"session": {"ref": session.ref}, "refresh": {"by": by}}
                | ({"anomalies": [Anomaly.REFRESH_REUSE.value]} if is_copy else {}),
            )
        )

    def key_of(self, token: str) -> bytes:
        """Return the keyed hash under which a refresh token is stored."""
        return hmac.digest(self._hash_key, token.encode("utf-8", "surrogateescape"), "sha256")[:16]


def _family_of(session: Session) -> Family:
    return Family(session=session.ref, subject=session.subject, logged_in_at=session.issued_at)


def _accepted(session: Session | Refusal | UnavailableError) -> Session:
    """Return the session of a new access token. The token is stored by now, so the next request gets it, too."""
    if isinstance(session, UnavailableError):
        raise session
    if isinstance(session, Refusal):
        raise UnavailableError(
            Reason.BACKEND_FAULT,
            f"The backend's new access token is not accepted here: {session}",
            setting=session.setting,
        )
    return session


def _is_over(session: Session | Refusal) -> bool:
    """Tell whether an access token has ended, or ends while the request is on its way."""
    if isinstance(session, Refusal):
        return session.reason is Reason.SESSION_EXPIRED
    ends = session.token_expires_at
    return ends is not None and ends - time.time() < LEFT_S


def _network(client: Client) -> str:
    """Return what of a client's address is compared: the address, or its IPv6 /64."""
    return str(network_of(client.address))


def _consume(task: "asyncio.Task[Refreshed | Refusal]") -> None:
    if not task.cancelled():
        task.exception()
