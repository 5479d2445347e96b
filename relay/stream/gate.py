"""The gate: every check that a connection has to pass before it gets a price.

The order matters. Checks that are cheap and need no secret come first, look-ups come later, and the token is used up
last: a plain GET, a bad key, a wrong origin or a wrong path must not cost the client its token. The gate knows no
transport. A transport gives it a `Handshake` (WebSocket: `relay.stream.handshake`).

Each refusal is a `Denied` with the exact reason, for the audit log. What the client gets is coarse.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from relay.core import tokens
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.core.grants import GrantOptions
from relay.core.revocations import key_is_revoked, token_is_revoked
from relay.keys.sources import KeySource
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.state.base import State


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """An endpoint of the stream. `audience` is the `aud` claim that a token for it has."""

    name: str
    path: str
    audience: str
    max_age_s: int
    options: GrantOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """The gate's settings. The keys of `endpoints` are paths."""

    issuer: str
    endpoints: Mapping[str, EndpointOptions]
    allowed_origins: frozenset[str]
    transports: Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRequest:
    """What a handshake asks for.

    `transport` is how the token came. With "first_message" it is to come as the first frame, and `token` is "".
    """

    token: str = field(repr=False)
    transport: str
    channels: tuple[str, ...]
    interval_ms: int


class Handshake(Protocol):
    """The request that begins a connection, in any transport."""

    @property
    def path(self) -> str:
        """The path as it came, without the query string."""
        ...

    @property
    def origins(self) -> Sequence[str]:
        """The values of all Origin headers."""
        ...

    def check(self) -> Refusal | None:
        """Check that the request is a handshake of this transport at all."""
        ...

    def read(self, *, transports: Collection[str]) -> HandshakeRequest | Refusal:
        """Read the token and the subscriptions. `transports` are the ways in which a token may come."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A handshake that has passed all checks that need no token."""

    endpoint: EndpointOptions
    origin: str
    request: HandshakeRequest
    client: Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A connection that has passed the gate; its token is used up."""

    attempt: Attempt
    claims: tokens.Claims
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A connection that was refused, with what is certain about it. `claims` are there if the signature was right."""

    refusal: Refusal
    client: Client
    endpoint: EndpointOptions | None = None
    origin: str = ""
    transport: str = ""
    claims: tokens.Claims | None = None


GateResult = Attempt | Admitted | Denied


def deny(attempt: Attempt, refusal: Refusal, claims: tokens.Claims | None = None) -> Denied:
    """Refuse an attempt that has passed `Gate.inspect`."""
    return Denied(
        refusal=refusal,
        client=attempt.client,
        endpoint=attempt.endpoint,
        origin=attempt.origin,
        transport=attempt.request.transport,
        claims=claims,
    )


class Gate:
    """Decides which connections are admitted.

    `closed` returns why no connection is admitted now, or None.
    """

    def __init__(
        self,
        options: GateOptions,
        *,
        keys: KeySource,
        state: State,
        unauthenticated: UnauthenticatedConnections,
        closed: Callable[[], Reason | None],
    ) -> None:
        self._options = options
        self._keys = keys
        self._state = state
        self._unauthenticated = unauthenticated
        self._closed = closed

    def update(self, options: GateOptions) -> None:
        """Use other options for the next handshakes. Open connections stay open."""
        self._options = options

    def inspect(self, handshake: Handshake, client: Client) -> Attempt | Denied:
        """Make all checks that need no token. Call `redeem` next, when the token is there."""
        endpoint: EndpointOptions | None = None
        origin = ""

        def denied(refusal: Refusal) -> Denied:
            return Denied(refusal=refusal, client=client, endpoint=endpoint, origin=origin)

        if closed := self._closed():
            return denied(Refusal(reason=closed))
        if refusal := handshake.check():
            return denied(refusal)
        # the path is compared as it came: a path that some code normalises can be made to mean two things
        endpoint = self._options.endpoints.get(handshake.path)
        if endpoint is None:
            return denied(Refusal(reason=Reason.PATH_UNKNOWN))
        origins = handshake.origins
        origin = origins[0] if origins else ""
        if origins and origin not in self._options.allowed_origins:
            return denied(Refusal(reason=Reason.ORIGIN_REFUSED))
        if self._unauthenticated.over_limit(client.address):
            return denied(Refusal(reason=Reason.ADDRESS_LIMIT))
        request = handshake.read(transports=self._options.transports)
        if isinstance(request, Refusal):
            return denied(request)
        return Attempt(endpoint=endpoint, origin=origin, request=request, client=client)

    async def redeem(
        self, attempt: Attempt, token: str, *, reserve: Callable[[str], bool], subject: str | None = None
    ) -> Admitted | Denied:
        """Check the token and use it up, in whichever way it came.

        `reserve` keeps a place among the connections of a session, and returns False if there is none. `subject` is the
        user whose token it must be, if the token refreshes a connection.
        """
        now = time.time()
        expected = tokens.Expected(
            issuer=self._options.issuer, audience=attempt.endpoint.audience, origin=None
        )
        try:
            keys = await self._keys.keys_for(token)
        except UnavailableError as error:
            return deny(attempt, Refusal.of(error))
        verified = tokens.verify(token, keys, now=now, expected=expected)
        if isinstance(verified, Refusal):
            # a good token at the wrong endpoint: the audit event names the token's user
            is_misplaced = verified.reason is Reason.TOKEN_AUDIENCE
            return deny(attempt, verified, tokens.signed_claims(token, keys) if is_misplaced else None)
        claims, kid = verified
        if claims.origin != attempt.origin:
            is_missing = claims.origin and not attempt.origin
            return deny(
                attempt, Refusal(reason=Reason.ORIGIN_MISSING if is_missing else Reason.TOKEN_ORIGIN), claims
            )
        if subject is not None and claims.subject != subject:
            return deny(attempt, Refusal(reason=Reason.TOKEN_SUBJECT), claims)
        if claims.session_expires_at is not None and claims.session_expires_at <= now:
            return deny(attempt, Refusal(reason=Reason.SESSION_EXPIRED), claims)
        if revoked := self.revocation(claims, kid):
            return deny(attempt, Refusal(reason=revoked), claims)
        if not reserve(claims.session_ref):
            return deny(attempt, Refusal(reason=Reason.CONNECTION_LIMIT), claims)
        try:
            if not await self._state.claim(claims.jti, expires_at=claims.expires_at):
                return deny(attempt, Refusal(reason=Reason.TOKEN_REPLAYED), claims)
        except UnavailableError as error:
            return deny(attempt, Refusal.of(error), claims)
        # without the token, which would otherwise stay in memory as long as the connection
        used = replace(attempt, request=replace(attempt.request, token=""))
        return Admitted(attempt=used, claims=claims, kid=kid)

    def revocation(self, claims: tokens.Claims, kid: str) -> Reason | None:
        """Return why a valid token is refused: the token, its session, its user or its key was revoked.

        See `relay.core.revocations`. The service asks again when the connection is registered, because a revocation can
        come between the two.
        """
        revoked_at = self._state.revoked_at
        if token_is_revoked(claims, revoked_at):
            return Reason.SESSION_REVOKED
        return Reason.KEY_REVOKED if self._keys.is_revoked(kid) or key_is_revoked(kid, revoked_at) else None
