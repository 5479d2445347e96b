"""The issuer of scoped tokens: checks what a session asks for, mints the token, and records it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from relay.audit.anomalies import ClientIdentity
from relay.audit.base import Auditor
from relay.core import tokens
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.core.jws import encode_part
from relay.core.origins import refused_origin
from relay.core.patterns import is_pattern
from relay.core.revocations import session_is_revoked
from relay.core.scope import MAX_CHANNELS
from relay.issuer.policy import EndpointTerms, Policy
from relay.limits.requests import RateLimits
from relay.random_ids import random_ids
from relay.sessions.base import Ended, EndedRefusal, RefusedSession, Session, SessionVerifier
from relay.sessions.life import outlives
from relay.sessions.recent_sessions import RecentSessions
from relay.state.base import State


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerOptions:
    """The issuer's settings. `issuer` is public.url. `max_s` and `leeway_s` are of sessions (`relay.sessions.life`)."""

    issuer: str
    ttl_s: int
    max_s: int
    leeway_s: int
    endpoints: Mapping[str, EndpointTerms]
    default_endpoint: str
    allowed_origins: frozenset[str]


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was asked for. `channels` None asks for all that is granted. `origin` is "" without a browser.

    `for_itself` says that the client will use the token itself. A server-side caller may hand it on.
    """

    endpoint: str
    channels: tuple[str, ...] | None
    origin: str
    for_itself: bool


class Issued(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A token, with the other members of the answer."""

    token: str
    audience: str
    expires_in: int
    granted: tuple[str, ...]
    rejected: tuple[str, ...]


def parse_request(
    body: Mapping[str, object], options: IssuerOptions, *, origin: str, bearer: bool
) -> TokenRequest | Refusal:
    """Check a request's body against the settings. `origin` is the one that the request's headers prove.

    Raises:
        MalformedError: if a member is of the wrong type.
    """
    if unknown := sorted(body.keys() - {"endpoint", "channels", "origin"}):
        raise MalformedError(f"Unknown member: {unknown[0][:40]}. There are endpoint, channels and origin.")
    endpoint = body.get("endpoint", options.default_endpoint)
    channels = body.get("channels")
    named = body.get("origin")
    if not isinstance(endpoint, str):
        raise MalformedError("endpoint must be a text.")
    if endpoint not in options.endpoints:
        return Refusal(reason=Reason.ENDPOINT_UNKNOWN, detail=f"There is no endpoint {endpoint[:40]!r}.")
    if channels is not None:
        if not options.endpoints[endpoint].has_channels:
            raise MalformedError(f"{endpoint} is a service, which has no channels: leave them out.")
        if refusal := _check_channels(channels):
            return refusal
    if named is not None:
        if not bearer or not isinstance(named, str):
            raise MalformedError("origin must be a text, and is only for callers with a Bearer header.")
        origin = named
    if origin and origin not in options.allowed_origins:
        # The gate would refuse the token, and a browser could not see why.
        return refused_origin(origin)
    return TokenRequest(
        endpoint=endpoint,
        channels=tuple(channels) if isinstance(channels, list) else None,
        origin=origin,
        for_itself=not bearer,
    )


def _check_channels(channels: object) -> Refusal | None:
    if not isinstance(channels, list) or not channels or not all(isinstance(c, str) for c in channels):
        raise MalformedError("channels must be a list of texts; leave it out for all that is granted.")
    if len(channels) > MAX_CHANNELS:
        return Refusal(
            reason=Reason.CHANNELS_TOO_MANY,
            detail=f"The request has {len(channels)} channels; at most {MAX_CHANNELS} are allowed.",
        )
    for channel in channels:
        if not is_pattern(channel):
            raise MalformedError(f"{channel[:80]!r} is not a channel or pattern.")
    return None


class Issuer:
    """Makes scoped tokens for sessions.

    `check_revocations` raises `UnavailableError` while too little is known of revocations.
    """

    def __init__(
        self,
        options: IssuerOptions,
        *,
        policy: Policy,
        limits: RateLimits,
        client_identity: ClientIdentity,
        verifier: SessionVerifier,
        recent_sessions: RecentSessions,
        state: State,
        auditor: Auditor,
        key: Callable[[], tokens.SigningKey],
        check_revocations: Callable[[], None] = lambda: None,
    ) -> None:
        self.options = options
        self.limits = limits
        self._client_identity = client_identity
        self._policy = policy
        self._verifier = verifier
        self._recent_sessions = recent_sessions
        self._state = state
        self._auditor = auditor
        self._key = key
        self._check_revocations = check_revocations
        self._ids = random_ids()

    def update(self, options: IssuerOptions, policy: Policy) -> None:
        """Use other options and grants for the next tokens. Tokens that were issued stay as they are."""
        self.options = options
        self._policy = policy

    async def authenticate(
        self,
        credential: str,
        *,
        now: float,
        grace_s: float = 0,
        caller: str = "",
        logged_in_at: float | None = None,
    ) -> Session | Refusal:
        """Return the session of a credential, or why there is none. For the others see `SessionVerifier.verify`.

        `logged_in_at` is the time of the log-in (Unix seconds, 0 if unknown) where the caller knows it better than the
        credential. Revocations up to that time or later apply.

        Raises:
            UnavailableError: if the session can't be checked now.
        """
        self._check_revocations()
        session = await self._verifier.verify(credential, now=now, grace_s=grace_s, caller=caller)
        if isinstance(session, Refusal):
            return session
        if logged_in_at is not None:
            session = msgspec.structs.replace(session, issued_at=logged_in_at)
        if session_is_revoked(
            ref=session.ref,
            subject=session.subject,
            issued_at=session.issued_at,
            own_id=session.own_id,
            revoked_at=self._state.revoked_at,
        ):
            return EndedRefusal(reason=Reason.SESSION_REVOKED, ended=Ended.REVOKED, session=session)
        if not grace_s and (
            refusal := outlives(session, now=now, max_s=self.options.max_s, leeway_s=self.options.leeway_s)
        ):
            return refusal
        ref = session.ref if session.own_id else ""  # a session without an id is found by its user
        self._recent_sessions.add(session.subject, ref, logged_in_at=session.issued_at, now=now)
        return session

    async def issue(
        self, session: Session, request: TokenRequest, client: Client, *, now: float
    ) -> Issued | Refusal:
        """Mint and record a token for what the session's roles grant of the request.

        Raises:
            UnavailableError: if it can't be signed or recorded; then there is no token.
        """
        grants = self._policy.sum_of(session.roles, request.endpoint)
        granted, rejected = grants.decide(request.channels)
        terms = self.options.endpoints[request.endpoint]
        has_channels = terms.has_channels
        if not (granted if has_channels else grants.any):
            return Refusal(
                reason=Reason.NOTHING_GRANTED, detail=f"Roles: {', '.join(session.roles) or 'none'}."
            )
        issued_at = int(now)
        jti = encode_part(next(self._ids)).decode("ascii")
        # the gate compares the client that connects with this one
        compared = request.for_itself and has_channels
        claims = tokens.Claims(
            issuer=self.options.issuer,
            audience=terms.audience,
            subject=session.subject,
            session_ref=session.ref,
            channels=granted,
            origin=request.origin,
            jti=jti,
            issued_at=issued_at,
            expires_at=issued_at + self.options.ttl_s,
            session_expires_at=session.expires_at,
            session_issued_at=int(session.issued_at) or None,
            options=grants.options,
            asker=self._client_identity.claim(jti, client) if compared else None,
            scope=terms.scope,
        )
        try:
            key = self._key()
            token = tokens.mint(claims, key)
        except ValueError as error:
            raise UnavailableError(Reason.INTERNAL_ERROR, str(error)) from error
        refused = dict.fromkeys(rejected, Reason.CHANNEL_FORBIDDEN)
        if request.channels is None:  # everything: the patterns for which one token has no room are refused
            refused = dict.fromkeys(grants.scope.patterns[len(granted) :], Reason.CHANNELS_TOO_MANY)
        by: Mapping[str, list[str]] = {}
        if len(session.roles) > 1:  # with one role it is clear which role grants a channel
            by = self._policy.granting(session.roles, request.endpoint, granted)
        # The record comes before the answer: there must be no token that the audit log does not know.
        await self._auditor.record(_issued(claims, key.kid, session, request, refused, by, client))
        return Issued(
            token=token,
            audience=terms.audience,
            expires_in=self.options.ttl_s,
            granted=granted,
            rejected=rejected,
        )

    def deny(
        self,
        refusal: Refusal,
        client: Client,
        *,
        status: int,
        session: Session | None = None,
        asked: TokenRequest | None = None,
        origin: str = "",
    ) -> None:
        """Record a refused request in the audit log, with everything about it that is certain, and what it claims."""
        claimed: Mapping[str, str] = {}
        if isinstance(refusal, RefusedSession):
            session, claimed = refusal.session, refusal.claimed
        self._auditor.note(
            Event(
                action=Action.TOKEN_DENIED,
                reason=refusal.reason,
                user=session.subject if session else "",
                client=client,
                status=status,
                endpoint=asked.endpoint if asked else "",
                relay={"origin": origin, "detail": str(refusal)}
                | ({"setting": refusal.setting} if refusal.setting else {})
                | ({"session": _session(session)} if session else {})
                | ({"claimed": dict(claimed)} if claimed else {})
                | ({"asked": _asked(asked)} if asked else {}),
            )
        )


def _issued(
    claims: tokens.Claims,
    kid: str,
    session: Session,
    request: TokenRequest,
    refused: Mapping[str, Reason],
    by: Mapping[str, list[str]],
    client: Client,
) -> Event:
    return Event(
        action=Action.TOKEN_ISSUED,
        user=claims.subject,
        client=client,
        status=200,
        endpoint=request.endpoint,
        relay={
            "session": _session(session),
            "origin": claims.origin,
            "asked": _asked(request),
            "rejected": [{"channel": name, "reason": reason.value} for name, reason in refused.items()],
            **({"granted": [{"channel": name, "roles": roles} for name, roles in by.items()]} if by else {}),
            "token": claims.record(kid=kid),
        },
    )


def _session(session: Session) -> dict[str, Any]:
    """Return the record's fields of a session: its reference, and its roles, which decide the grants."""
    return {"ref": session.ref, "roles": list(session.roles)}


def _asked(request: TokenRequest) -> dict[str, Any]:
    """Return the record's fields of what was asked for. An empty list asks for all that is granted."""
    return {"endpoint": request.endpoint, "channels": list(request.channels or ())}
