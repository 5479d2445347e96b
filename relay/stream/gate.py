"""The gate: everything that is checked before a connection may have a price.

The order is the point. What is cheap and needs no secret comes first, what is looked up comes later, and the
token is used up last of all: a plain GET, a bad key, a wrong origin or a wrong path must not cost its owner
the token. `process_request` runs before the library's own checks of the handshake, so those are run here by
hand first; otherwise a broken handshake would use a token up and then be answered 400.

Every way out is a `Denied` with the exact reason for the audit log; what the client sees is coarse.
"""

import http
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import msgspec
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidMethod, InvalidUpgrade
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from relay.core import tokens
from relay.core.closes import answer_for
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.core.grants import GrantOptions
from relay.core.revocations import key_is_cut_off, token_is_cut_off
from relay.keys.sources import KeySource
from relay.limits.retry_after import jittered, retry_after
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.state.base import State
from relay.stream.handshake import Asked, read_handshake
from relay.web.headers import SECURITY_HEADERS


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """An endpoint as the stream knows it. `audience` is what tokens for it must say."""

    name: str
    path: str
    audience: str
    max_age_s: int
    options: GrantOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """The gate's settings. `endpoints` by path."""

    issuer: str
    endpoints: Mapping[str, EndpointOptions]
    allowed_origins: frozenset[str]
    transports: Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A handshake that is in order as far as can be told without a token."""

    endpoint: EndpointOptions
    origin: str
    asked: Asked
    client: Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A connection that may be let in; its token is used up."""

    attempt: Attempt
    claims: tokens.Claims
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A connection that may not, with as much about it as is certain. `claims` only after the signature held."""

    refusal: Refusal
    client: Client
    endpoint: EndpointOptions | None = None
    origin: str = ""
    transport: str = ""
    claims: tokens.Claims | None = None


def deny(attempt: Attempt, refusal: Refusal, claims: tokens.Claims | None = None) -> Denied:
    """Refuse an attempt that got past `Gate.inspect`."""
    return Denied(
        refusal=refusal,
        client=attempt.client,
        endpoint=attempt.endpoint,
        origin=attempt.origin,
        transport=attempt.asked.transport,
        claims=claims,
    )


class Gate:
    """Decides who gets in. `closed` tells why nobody does now, if so."""

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

    def inspect(self, request: Request, protocol: ServerProtocol, client: Client) -> Attempt | Denied:
        """Check all that can be checked without looking at the token."""
        endpoint: EndpointOptions | None = None
        origin = ""

        def denied(reason: Reason, detail: str = "") -> Denied:
            return Denied(
                refusal=Refusal(reason=reason, detail=detail), client=client, endpoint=endpoint, origin=origin
            )

        if closed := self._closed():
            return denied(closed)
        if refusal := _check_handshake(request, protocol):
            return denied(refusal.reason, refusal.detail)
        endpoint = self._options.endpoints.get(request.path.partition("?")[0])
        if endpoint is None:
            return denied(Reason.PATH_UNKNOWN)
        origins = request.headers.get_all("Origin")
        origin = origins[0] if origins else ""
        if origins and origin not in self._options.allowed_origins:
            return denied(Reason.ORIGIN_REFUSED)
        if self._unauthenticated.over_limit(client.address):
            return denied(Reason.ADDRESS_LIMIT)
        asked = read_handshake(request, transports=self._options.transports)
        if isinstance(asked, Refusal):
            return denied(asked.reason, asked.detail)
        return Attempt(endpoint=endpoint, origin=origin, asked=asked, client=client)

    async def redeem(
        self, attempt: Attempt, token: str, *, reserve: Callable[[str], bool], subject: str | None = None
    ) -> Admission | Denied:
        """Check the token and use it up. The same for all ways in which it may come.

        `reserve` keeps a place among the connections of a session, if there is one. `subject` is whose the token must
        be, when it comes to refresh a connection.
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
            # somebody's good token at the wrong place: the record says whose
            misplaced = verified.reason is Reason.TOKEN_AUDIENCE
            return deny(attempt, verified, tokens.signed_claims(token, keys) if misplaced else None)
        claims, kid = verified
        if claims.origin != attempt.origin:
            missing = claims.origin and not attempt.origin
            return deny(
                attempt, Refusal(reason=Reason.ORIGIN_MISSING if missing else Reason.TOKEN_ORIGIN), claims
            )
        if subject is not None and claims.subject != subject:
            return deny(attempt, Refusal(reason=Reason.TOKEN_SUBJECT), claims)
        if claims.session_expires_at is not None and claims.session_expires_at <= now:
            return deny(attempt, Refusal(reason=Reason.SESSION_EXPIRED), claims)
        if cut_off := self.cut_off(claims, kid, now=now):
            return deny(attempt, Refusal(reason=cut_off), claims)
        if not reserve(claims.session_ref):
            return deny(attempt, Refusal(reason=Reason.CONNECTION_LIMIT), claims)
        try:
            if not await self._state.claim(claims.jti, expires_at=claims.expires_at):
                return deny(attempt, Refusal(reason=Reason.TOKEN_REPLAYED), claims)
        except UnavailableError as error:
            return deny(attempt, Refusal.of(error), claims)
        spent = replace(attempt, asked=replace(attempt.asked, token=""))  # nothing keeps it for the next hour
        return Admission(attempt=spent, claims=claims, kid=kid)

    def cut_off(self, claims: tokens.Claims, kid: str, *, now: float) -> Reason | None:
        """Tell why the token is refused though it is good: it, its session, its user or its key was cut off.

        See `relay.core.revocations`. Asked again when the connection is registered: much may pass in between.
        """
        revoked_at = partial(self._state.revoked_at, now=now)
        if token_is_cut_off(claims, revoked_at):
            return Reason.SESSION_REVOKED
        return Reason.KEY_REVOKED if self._keys.is_revoked(kid) or key_is_cut_off(kid, revoked_at) else None


def _check_handshake(request: Request, protocol: ServerProtocol) -> Refusal | None:
    """Run the library's own checks of the handshake (RFC 6455 §4.2.1) before ours."""
    if len(request.headers.get_all("Origin")) > 1:  # malformed to the library, an attack to us
        return Refusal(reason=Reason.ORIGIN_REFUSED)
    if len(request.headers.get_all("Host")) != 1:  # RFC 6455 §4.2.1, RFC 9112 §3.2; the library does not look
        return Refusal(reason=Reason.HANDSHAKE_MALFORMED, detail="Not exactly one Host.")
    try:
        checked = protocol.process_request(request)
    except InvalidMethod:
        return Refusal(reason=Reason.METHOD_NOT_ALLOWED)
    except InvalidUpgrade:
        return Refusal(reason=Reason.NOT_AN_UPGRADE)
    except InvalidHandshake as error:
        return Refusal(reason=Reason.HANDSHAKE_MALFORMED, detail=type(error).__name__)
    # the library asks again when it accepts, and gets the same answer without the work
    setattr(protocol, "process_request", lambda _request: checked)  # noqa: B010  # mypy forbids it otherwise
    return None


def refusal_response(refusal: Refusal) -> Response:
    """Return the HTTP answer to a refused handshake: coarse, JSON, and the connection ends.

    There is one body for every 401, a revoked session's too: what differs tells what else was right.
    """
    answer = answer_for(refusal.reason)
    if answer.status == 401:
        answer = answer_for(Reason.TOKEN_MISSING)
    body = msgspec.json.encode(
        {"code": answer.code, "message": answer.message, "retryable": answer.retryable}
    )
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **SECURITY_HEADERS,
        }
    )
    if answer.status in (429, 503):
        headers["Retry-After"] = retry_after(jittered())
    if refusal.reason is Reason.NOT_AN_UPGRADE:
        headers["Upgrade"] = "websocket"
    if refusal.reason in (Reason.NOT_AN_UPGRADE, Reason.HANDSHAKE_MALFORMED):
        headers["Sec-WebSocket-Version"] = "13"  # RFC 6455 §4.4: it may have been the version
    if refusal.reason is Reason.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET"
    return Response(answer.status, http.HTTPStatus(answer.status).phrase, headers, body)
