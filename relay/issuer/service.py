"""POST /auth/ws-token: who asks, for what, from where, and the token that answers it.

The order matters. CSRF and the address limit come before any signature is checked, so that a flood costs
little; the record in the audit log comes before the answer, so that no token exists that the log does not know.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from relay.audit.base import Auditor
from relay.core import tokens
from relay.core.channels import is_pattern
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.core.scope import MAX_CHANNELS
from relay.issuer.policy import EndpointTerms, Policy
from relay.sessions.base import Session, SessionVerifier
from relay.state.base import State


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerOptions:
    """The issuer's settings. `issuer` is public.url; limits are texts like "30/minute"."""

    issuer: str
    ttl_s: int
    endpoints: Mapping[str, EndpointTerms]
    default_endpoint: str
    allowed_origins: frozenset[str]
    tokens_per_session: str
    tokens_per_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What was asked for. `channels` None: all that is granted. `origin` "": a caller without a browser."""

    endpoint: str
    channels: tuple[str, ...] | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token and what goes with it in the answer."""

    token: str
    audience: str
    expires_in: int
    granted: tuple[str, ...]
    rejected: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """Refused for now; `retry_after_s` is jittered, so that those who were refused together don't return together."""

    refusal: Refusal
    retry_after_s: float


class RateLimits:
    """Token requests by address and by session, in moving windows."""

    def __init__(self, *, per_address: str, per_session: str) -> None:
        self._windows = MovingWindowRateLimiter(MemoryStorage())
        self._per_address = parse(per_address)
        self._per_session = parse(per_session)

    def address(self, address: str) -> Limited | None:
        """Count a request from `address`."""
        return self._hit(self._per_address, "address", address)

    def session(self, ref: str) -> Limited | None:
        """Count a request of the session `ref`."""
        return self._hit(self._per_session, "session", ref)

    def _hit(self, limit: RateLimitItem, kind: str, key: str) -> Limited | None:
        if self._windows.hit(limit, kind, key):
            return None
        reset = self._windows.get_window_stats(limit, kind, key).reset_time - time.time()
        jitter = 1 + secrets.randbelow(1000) / 2000
        return Limited(
            refusal=Refusal(reason=Reason.RATE_LIMITED, detail=f"{limit} for this {kind}."),
            retry_after_s=max(1.0, reset) * jitter,
        )


def parse_request(
    body: Mapping[str, object], options: IssuerOptions, *, origin: str, bearer: bool
) -> TokenRequest | Refusal:
    """Check a request's body against the settings. `origin` is what the request's own headers prove.

    Raises:
        MalformedError: if a member is of the wrong type.
    """
    if unknown := sorted(body.keys() - {"endpoint", "channels", "origin"}):
        raise MalformedError(f"Unknown member: {unknown[0][:40]}. There are endpoint, channels and origin.")
    endpoint = body.get("endpoint", options.default_endpoint)
    channels = body.get("channels")
    named = body.get("origin")
    if not isinstance(endpoint, str):
        raise MalformedError("endpoint is a text.")
    if endpoint not in options.endpoints:
        return Refusal(reason=Reason.ENDPOINT_UNKNOWN, detail=f"There is no endpoint {endpoint[:40]!r}.")
    if channels is not None:
        if not isinstance(channels, list) or not channels or not all(isinstance(c, str) for c in channels):
            raise MalformedError("channels is a list of texts, or left out for all that is granted.")
        if len(channels) > MAX_CHANNELS:
            return Refusal(reason=Reason.CHANNELS_TOO_MANY, detail=f"{len(channels)} channels.")
        for channel in channels:
            if not is_pattern(channel):
                raise MalformedError(f"{channel[:80]!r} is not a channel or pattern.")
    if named is not None:
        if not bearer or not isinstance(named, str):
            raise MalformedError("origin is a text, for callers that authenticate with a Bearer header.")
        origin = named
    if origin and origin not in options.allowed_origins:
        # the gate would refuse it, and a browser could not see why
        return Refusal(reason=Reason.ORIGIN_REFUSED, detail=f"{origin[:120]!r} may not open sockets.")
    return TokenRequest(
        endpoint=endpoint, channels=None if channels is None else tuple(channels), origin=origin
    )


class Issuer:
    """Makes scoped tokens for sessions."""

    def __init__(
        self,
        options: IssuerOptions,
        *,
        policy: Policy,
        verifier: SessionVerifier,
        state: State,
        auditor: Auditor,
        key: tokens.SigningKey,
    ) -> None:
        self.options = options
        self.limits = RateLimits(
            per_address=options.tokens_per_address, per_session=options.tokens_per_session
        )
        self._policy = policy
        self._verifier = verifier
        self._state = state
        self._auditor = auditor
        self._key = key

    async def authenticate(self, credential: str, *, now: float) -> Session | Refusal:
        """Return the live session behind a credential, or why there is none.

        Raises:
            UnavailableError: if the session can't be checked now.
        """
        session = await self._verifier.verify(credential, now=now)
        if isinstance(session, Refusal):
            return session
        revoked_at = self._state.revoked_at(session.ref, now=now)
        # without an id of its own a session is known by its user only, and a later log-in lifts the revocation
        if revoked_at is not None and (session.own_id or session.issued_at <= revoked_at):
            return Refusal(reason=Reason.SESSION_REVOKED)
        return session

    async def issue(
        self, session: Session, request: TokenRequest, client: Client, *, now: float
    ) -> Issued | Refusal:
        """Mint and record a token for what the session's roles grant of the request.

        Raises:
            UnavailableError: if it can't be recorded; then there is no token.
        """
        granted, rejected = self._policy.decide(session.roles, request.endpoint, request.channels)
        if not granted:
            return Refusal(
                reason=Reason.NOTHING_GRANTED, detail=f"Roles: {', '.join(session.roles) or 'none'}."
            )
        terms = self.options.endpoints[request.endpoint]
        issued_at = int(now)
        claims = tokens.Claims(
            issuer=self.options.issuer,
            audience=terms.audience,
            subject=session.subject,
            session_ref=session.ref,
            channels=granted,
            origin=request.origin,
            jti=secrets.token_urlsafe(16),
            issued_at=issued_at,
            expires_at=issued_at + self.options.ttl_s,
            session_expires_at=session.expires_at,
            min_interval_ms=self._policy.min_interval_ms(session.roles, request.endpoint),
        )
        try:
            token = tokens.mint(claims, self._key)
        except ValueError as error:
            raise UnavailableError(Reason.INTERNAL_ERROR, str(error)) from error
        await self._auditor.record(_issued(claims, self._key.kid, request, rejected, client))
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
        origin: str = "",
    ) -> None:
        """Note a refused request in the audit log."""
        self._auditor.note(
            Event(
                action=Action.TOKEN_DENIED,
                reason=refusal.reason,
                user=session.subject if session else "",
                client=client,
                status=status,
                relay={"origin": origin, "detail": str(refusal)}
                | ({"session": {"ref": session.ref}} if session else {}),
            )
        )


def _issued(
    claims: tokens.Claims, kid: str, request: TokenRequest, rejected: tuple[str, ...], client: Client
) -> Event:
    return Event(
        action=Action.TOKEN_ISSUED,
        user=claims.subject,
        client=client,
        status=200,
        relay={
            "session": {"ref": claims.session_ref},
            "origin": claims.origin,
            "asked": {"endpoint": request.endpoint, "channels": list(request.channels or ())},
            "rejected": list(rejected),
            "token": {
                "jti": claims.jti,
                "kid": kid,
                "aud": claims.audience,
                "scope": claims.scope,
                "channels": list(claims.channels),
                "iat": claims.issued_at,
                "exp": claims.expires_at,
            },
        },
    )
