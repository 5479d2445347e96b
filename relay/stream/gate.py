"""The gate: every check that a connection has to pass before it gets a price.

The order matters. Checks that are cheap and need no secret come first, look-ups come later, and the token is used up
last: a plain GET, a bad key, a wrong origin or a wrong path must not cost the client its token. The gate knows no
transport. A transport gives it a `Handshake` (WebSocket: `relay.stream.handshake`).

Each refusal is a `Denied` with the exact reason, for the audit log. What the client gets is coarse.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from msgspec.structs import replace

from relay.core import tokens
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.core.grants import GrantOptions
from relay.core.jws import VerifyKey
from relay.core.messages import Since
from relay.core.origins import refused_origin
from relay.core.revocations import key_is_revoked, token_is_revoked
from relay.keys.sources import KeySource
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.state.base import NoPlaceError, Place, State


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


class HandshakeRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a handshake asks for.

    `transport` is how the token came. With "first_message" it is to come as the first frame, and `token` is "".
    """

    token: str
    transport: str
    channels: tuple[str, ...]
    interval_ms: int
    compress: bool = False  # of an event stream; a WebSocket negotiates it
    since: Mapping[str, Since] = {}
    """Where `stream` channels are resumed, if the transport says so with the handshake."""
    last_id: str = ""
    """The last id that the client got, if the transport has ids: see `relay.core.positions`."""

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"HandshakeRequest(transport={self.transport!r}, channels={self.channels!r})"


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

    @property
    def same_origin(self) -> bool:
        """Whether a browser says that the page has the origin of the address that it asked (`Sec-Fetch-Site`).

        Browsers send no Origin then, except with WebSocket handshakes. No script can set this header. A page of another
        site can only send it to its own server.
        """
        ...

    def check(self) -> Refusal | None:
        """Check that the request is a handshake of this transport at all."""
        ...

    def read(self, *, transports: Collection[str]) -> HandshakeRequest | Refusal:
        """Read the token and the subscriptions. `transports` are the ways in which a token may come."""
        ...

    def presented(self) -> tuple[str, str]:
        """Return the token of a refused handshake and how it came, wherever it is; "" twice if there is not one."""
        ...


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A handshake that has passed all checks that need no token.

    With `same_origin` the origin is that of the token: see `Handshake.same_origin`.
    """

    endpoint: EndpointOptions
    origin: str
    same_origin: bool = False
    request: HandshakeRequest
    client: Client


class Admitted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A connection that has passed the gate; its token is used up."""

    attempt: Attempt
    claims: tokens.Claims
    kid: str


class Denied(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A connection that was refused, with what its token says.

    `claims` and `kid` are there if the signature was right and the key was not revoked. Otherwise `claimed` has what
    the token says without a proof (`tokens.claimed_identity`).
    """

    refusal: Refusal
    client: Client
    endpoint: EndpointOptions | None = None
    origin: str = ""
    transport: str = ""
    claims: tokens.Claims | None = None
    kid: str = ""
    claimed: Mapping[str, str] = {}


GateResult = Attempt | Admitted | Denied


_WITHOUT_IDENTITY = frozenset({Reason.DRAINING, Reason.RELAY_FULL, Reason.ADDRESS_LIMIT})
"""Refusals because of load. Thousands of them come in one second, so their tokens are not looked at."""

_SIGNED = frozenset(
    {
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_NOT_YET_VALID,
        Reason.TOKEN_LIFETIME,
        Reason.TOKEN_ISSUER,
        Reason.TOKEN_AUDIENCE,
        Reason.TOKEN_SCOPE,
    }
)
"""The refusals of `tokens.verify` for which the signature was checked before and was right."""


def deny(attempt: Attempt, refusal: Refusal, verified: tuple[tokens.Claims, str] | None = None) -> Denied:
    """Refuse an attempt that has passed `Gate.inspect`. `verified` is the result of `tokens.verify`."""
    return Denied(
        refusal=refusal,
        client=attempt.client,
        endpoint=attempt.endpoint,
        origin=attempt.origin,
        transport=attempt.request.transport,
        claims=verified[0] if verified else None,
        kid=verified[1] if verified else "",
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

    def allows(self, origin: str) -> bool:
        """Tell whether pages of this origin may connect."""
        return origin in self._options.allowed_origins

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
            return denied(refused_origin(origin))
        if self._unauthenticated.over_limit(client.address):
            return denied(Refusal(reason=Reason.ADDRESS_LIMIT))
        request = handshake.read(transports=self._options.transports)
        if isinstance(request, Refusal):
            return denied(request)
        same_origin = handshake.same_origin and not origins
        return Attempt(
            endpoint=endpoint, origin=origin, same_origin=same_origin, request=request, client=client
        )

    async def redeem(
        self,
        attempt: Attempt,
        token: str,
        *,
        reserve: Callable[[str], Place | None],
        subject: str | None = None,
    ) -> Admitted | Denied:
        """Check the token and use it up, in whichever way it came.

        `reserve` keeps a place among the connections of a session (`Registry.reserve`). `subject` is the user whose
        token it must be, if the token refreshes a connection.
        """
        now = time.time()
        expected = tokens.Expected(
            issuer=self._options.issuer, audience=attempt.endpoint.audience, origin=None
        )
        try:
            keys = await self._keys.keys_for(token, caller=attempt.client.address)
        except UnavailableError as error:
            return replace(deny(attempt, Refusal.of(error)), claimed=tokens.claimed_identity(token))
        verified = tokens.verify(token, keys, now=now, expected=expected)
        if isinstance(verified, Refusal):
            denied = deny(attempt, verified)
            return self._with_identity(denied, token, keys if verified.reason in _SIGNED else {})
        claims, kid = verified
        is_theirs = claims.origin in self._options.allowed_origins
        if not (is_theirs if attempt.same_origin else claims.origin == attempt.origin):
            is_missing = claims.origin and not attempt.origin and not attempt.same_origin
            return deny(
                attempt,
                Refusal(reason=Reason.ORIGIN_MISSING if is_missing else Reason.TOKEN_ORIGIN),
                verified,
            )
        if attempt.origin != claims.origin:
            attempt = replace(attempt, origin=claims.origin)
        if subject is not None and claims.subject != subject:
            return deny(attempt, Refusal(reason=Reason.TOKEN_SUBJECT), verified)
        if claims.session_expires_at is not None and claims.session_expires_at <= now:
            return deny(attempt, Refusal(reason=Reason.SESSION_EXPIRED), verified)
        if revoked := self.revocation(claims, kid):
            denied = deny(attempt, Refusal(reason=revoked))
            return self._with_identity(denied, token, keys)
        try:
            if not await self._state.claim(
                claims.jti,
                expires_at=claims.expires_at,
                issued_at=claims.issued_at,
                place=reserve(claims.session_ref),
            ):
                return deny(attempt, Refusal(reason=Reason.TOKEN_REPLAYED), verified)
        except NoPlaceError:
            return deny(attempt, Refusal(reason=Reason.CONNECTION_LIMIT), verified)
        except UnavailableError as error:
            return deny(attempt, Refusal.of(error), verified)
        # without the token, which would otherwise stay in memory as long as the connection
        used = replace(attempt, request=replace(attempt.request, token=""))
        return Admitted(attempt=used, claims=claims, kid=kid)

    async def identify(self, denied: Denied, handshake: Handshake) -> Denied:
        """Return a refusal of `inspect` with what the handshake's token says. The token is not used up."""
        token, transport = "", ""
        if denied.refusal.reason not in _WITHOUT_IDENTITY:
            token, transport = handshake.presented()
        if not token:
            return denied
        try:
            keys = await self._keys.keys_for(token)
        except UnavailableError:
            keys = {}
        return self._with_identity(replace(denied, transport=transport), token, keys)

    def _with_identity(self, denied: Denied, token: str, keys: Mapping[str, VerifyKey]) -> Denied:
        """Return `denied` with the claims of its token, if one of `keys` proves them, and else with what it claims.

        A revoked key proves nothing: somebody else may have it.
        """
        signed = tokens.signed_claims(token, keys) if keys else None
        if signed is not None and not self._key_is_revoked(signed[1]):
            return replace(denied, claims=signed[0], kid=signed[1])
        claimed = tokens.claimed_identity(token)
        if denied.refusal.reason is Reason.TOKEN_KEY_UNKNOWN and self._key_is_revoked(claimed.get("kid", "")):
            detail = "The token names a key that was revoked."
            denied = replace(denied, refusal=dataclasses.replace(denied.refusal, detail=detail))
        return replace(denied, claimed=claimed)

    def revocation(self, claims: tokens.Claims, kid: str) -> Reason | None:
        """Return why a valid token is refused: the token, its session, its user or its key was revoked.

        See `relay.core.revocations`. The service asks again when the connection is registered, because a revocation can
        come between the two.
        """
        if token_is_revoked(claims, self._state.revoked_at):
            return Reason.SESSION_REVOKED
        return Reason.KEY_REVOKED if self._key_is_revoked(kid) else None

    def _key_is_revoked(self, kid: str) -> bool:
        return self._keys.is_revoked(kid) or key_is_revoked(kid, self._state.revoked_at)
