"""The WebSocket handshake: the RFC's checks, what it asks for, and the HTTP answer to a refused one."""

import http
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

import msgspec
from websockets.datastructures import Headers
from websockets.exceptions import (
    HeaderLineTooLong,
    InvalidMethod,
    InvalidUpgrade,
    RequestLineTooLong,
    TooManyHeaders,
)
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.messages import MAX_CHANNELS_A_FRAME, PROTOCOL, Auth, parse_client_frame
from relay.limits.retry_after import jittered, retry_after
from relay.stream.compression import FullWindowDeflate
from relay.stream.gate import HandshakeRequest
from relay.web.channel_query import plus_is_itself
from relay.web.head_limits import MAX_COOKIES, count_cookies, too_large
from relay.web.headers import SECURITY_HEADERS

BEARER = "bearer."
DEFLATE = FullWindowDeflate()
ONCE = frozenset({"token", "channels", "interval_ms", "since", "last_event_id", "compress"})
"""Members of a query string that may not come twice."""
MAX_FIELDS = 16
"""Members of a query string that are read. Six are the relay's; proxies and cache busters add some."""


class WebSocketHandshake:
    """One opening handshake (RFC 6455 §4.2), as the gate wants it: see `relay.stream.gate.Handshake`.

    `response` is the library's answer, 101 if `check` found nothing. Give it back to the library when the gate has
    admitted the connection: then the library neither checks the request nor computes the answer a second time.
    """

    def __init__(self, request: Request, protocol: ServerProtocol) -> None:
        self._request = request
        self._protocol = protocol
        self.response: Response | None = None
        self.path = request.path.partition("?")[0]
        self.origins: Sequence[str] = request.headers.get_all("Origin")
        self.same_origin = False  # browsers send Origin with each WebSocket handshake

    def check(self) -> Refusal | None:
        """Check that the request is a WebSocket handshake (RFC 6455 §4.2.1).

        The library would check it after the gate. By then a broken handshake would have used up a token.
        """
        if refusal := check_head(self._request):
            return refusal
        if "compress" in self._request.path and asks_for_compression(read_query(self._request)):
            self._protocol.available_extensions = [DEFLATE]
        self.response = self._protocol.accept(self._request)
        error = self._protocol.handshake_exc
        if error is None:
            return None
        error.__traceback__ = None  # its frames refer to the request, which refers to the error
        if isinstance(error, InvalidMethod):
            return Refusal(reason=Reason.METHOD_NOT_ALLOWED)
        if isinstance(error, InvalidUpgrade):
            return Refusal(reason=Reason.NOT_AN_UPGRADE)
        return malformed(type(error).__name__)

    def read(self, *, transports: Collection[str]) -> HandshakeRequest | Refusal:
        """Read the token and the subscriptions. `transports` are the ways in which a token may come."""
        return read_handshake(self._request, transports=transports)

    def presented(self) -> tuple[str, str]:
        """See `Handshake.presented`."""
        protocols = offered_protocols(self._request.headers)
        found = _tokens(protocols, query_tokens(self._request))
        return found[0] if len(found) == 1 else ("", "")


def asks_for_compression(values: dict[str, str] | Refusal) -> bool:
    """Tell whether a query string asks for it. Without a question a client gets no extension, whatever it offers."""
    return not isinstance(values, Refusal) and values.get("compress") == "1"


def check_head(request: Request) -> Refusal | None:
    """Check what the library does not, and what is the same for each transport."""
    if len(request.headers.get_all("Origin")) > 1:
        # the library calls it malformed; browsers never send two, so it is an attack
        return Refusal(reason=Reason.ORIGIN_REFUSED)
    if sum(count_cookies(value) for value in request.headers.get_all("Cookie")) > MAX_COOKIES:
        return too_large()
    # RFC 6455 §4.2.1, RFC 9112 §3.2
    if len(request.headers.get_all("Host")) != 1:
        return malformed("The request does not have exactly one Host header.")
    return None


def query_tokens(request: Request) -> list[str]:
    """Return the values of `token` in a query string, which may be malformed."""
    _, _, query = request.path.partition("?")
    try:
        fields = parse_qsl(query, max_num_fields=MAX_FIELDS, errors="strict")
    except (ValueError, UnicodeError):
        return []
    return [value for name, value in fields if name == "token"]


def malformed(detail: str) -> Refusal:
    """Return the refusal of a handshake with a mistake. `detail` is for the audit log."""
    return Refusal(reason=Reason.HANDSHAKE_MALFORMED, detail=detail)


def refusal_of(error: Exception) -> Refusal:
    """Return the refusal of a request that the library could not read."""
    if isinstance(error, RequestLineTooLong | HeaderLineTooLong | TooManyHeaders):
        return too_large()
    return malformed("The request is not HTTP, or it has a body.")


def read_handshake(request: Request, *, transports: Collection[str]) -> HandshakeRequest | Refusal:
    """Read the token and the subscriptions. There must be one token, or none if it may come as the first frame."""
    values = read_query(request)
    if isinstance(values, Refusal):
        return values
    found = _one_token(request.headers, values, transports=transports)
    if isinstance(found, Refusal):
        return found
    subscriptions = read_subscriptions(values)
    if isinstance(subscriptions, Refusal):
        return subscriptions
    token, transport = found
    channels, interval_ms = subscriptions
    return HandshakeRequest(token=token, transport=transport, channels=channels, interval_ms=interval_ms)


def read_query(request: Request) -> dict[str, str] | Refusal:
    """Return the members of the query string. The relay's own may not come twice."""
    _, _, query = request.path.partition("?")
    try:
        fields = parse_qsl(
            plus_is_itself(query),
            keep_blank_values=True,
            strict_parsing=bool(query),
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except (ValueError, UnicodeError):
        return malformed("The query string is malformed.")
    values: dict[str, str] = {}
    for name, value in fields:
        if name in values and name in ONCE:
            reason = Reason.TOKEN_REPEATED if name == "token" else Reason.HANDSHAKE_MALFORMED
            return Refusal(reason=reason, detail=f"The query string has {name} twice.")
        values[name] = value
    if values.get("compress", "0") not in ("0", "1"):
        return malformed("compress must be 0 or 1.")
    return values


def read_subscriptions(values: Mapping[str, str]) -> tuple[tuple[str, ...], int] | Refusal:
    """Return the channels of a query string, and their interval."""
    channels = tuple(channel for channel in values.get("channels", "").split(",") if channel)
    if refusal := check_count(channels):
        return refusal
    interval = values.get("interval_ms", "0")
    if not interval.isascii() or not interval.isdigit() or len(interval) > 6:
        return malformed("interval_ms must be a whole number of at most 6 digits.")
    return channels, int(interval)


def check_count(channels: Sequence[str]) -> Refusal | None:
    """Refuse more channels than a handshake may name."""
    if len(channels) <= MAX_CHANNELS_A_FRAME:
        return None
    detail = f"The request names {len(channels)} channels; at most {MAX_CHANNELS_A_FRAME} are allowed."
    return Refusal(reason=Reason.CHANNELS_TOO_MANY, detail=detail)


def offered_protocols(headers: Headers) -> list[str]:
    """Return the members of Sec-WebSocket-Protocol. The header may come more than once (RFC 6455 §4.1)."""
    return [part.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for part in value.split(",")]


def _one_token(
    headers: Headers, query: dict[str, str], *, transports: Collection[str]
) -> tuple[str, str] | Refusal:
    protocols = offered_protocols(headers)
    found = _tokens(protocols, [query["token"]] if "token" in query else [])
    if len(found) > 1:
        return Refusal(reason=Reason.TOKEN_REPEATED)
    if not found:
        if "first_message" in transports:
            return "", "first_message"
        return Refusal(reason=Reason.TOKEN_MISSING)
    token, transport = found[0]
    if transport not in transports:
        return Refusal(
            reason=Reason.TOKEN_TRANSPORT, detail=f"tokens.transports does not allow tokens by {transport}."
        )
    if transport == "subprotocol" and PROTOCOL not in protocols:
        # without it the server has nothing to select, and browsers fail the handshake without a reason
        return malformed(f"Offer the subprotocol {PROTOCOL} with the token.")
    if not token:
        return Refusal(reason=Reason.TOKEN_MISSING)
    return token, transport


def _tokens(protocols: Sequence[str], in_query: Sequence[str]) -> list[tuple[str, str]]:
    """Return the tokens of a handshake, each with how it came."""
    found = [(part.removeprefix(BEARER), "subprotocol") for part in protocols if part.startswith(BEARER)]
    return found + [(token, "query") for token in in_query]


_NO_HEADERS: Mapping[str, str] = {}


def refusal_response(refusal: Refusal, more: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Return the HTTP answer to a refused handshake: coarse, in JSON, and the last on its connection.

    `more` are headers that this transport adds.

    Every 401 has the same body, also for a revoked session. A difference would tell an attacker which part was right.
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
            **more,
        }
    )
    if answer.status in (429, 503):
        headers["Retry-After"] = retry_after(jittered())
    if refusal.reason is Reason.NOT_AN_UPGRADE:
        headers["Upgrade"] = "websocket"
    if refusal.reason in (Reason.NOT_AN_UPGRADE, Reason.HANDSHAKE_MALFORMED):
        headers["Sec-WebSocket-Version"] = "13"  # RFC 6455 §4.4: the version may have been wrong
    if refusal.reason is Reason.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET"
    return Response(answer.status, http.HTTPStatus(answer.status).phrase, headers, body)


def auth_frame(message: str | bytes) -> Auth | Reason:
    """Parse a frame that should have a token. Return why it has none."""
    if isinstance(message, bytes):
        return Reason.FRAME_BINARY
    try:
        frame = parse_client_frame(message)
    except MalformedError as error:
        return error.reason
    return frame if isinstance(frame, Auth) else Reason.FRAME_MALFORMED
