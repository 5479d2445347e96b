"""The WebSocket handshake: the RFC's checks, what it asks for, and the HTTP answer to a refused one."""

import http
import re
import time
from collections.abc import Collection, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
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
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.messages import MAX_CHANNELS_A_FRAME, PROTOCOL, Auth, parse_client_frame
from relay.limits.retry_after import jittered, retry_after
from relay.stream.compression import FullWindowDeflate
from relay.stream.gate import HandshakeRequest
from relay.web.channel_query import plus_is_itself
from relay.web.head_limits import MAX_COOKIES, MAX_HEADERS, count_cookies, too_large
from relay.web.headers import SECURITY_HEADERS

BEARER = "bearer."
DEFLATE = FullWindowDeflate()
ONCE = frozenset({"token", "channels", "interval_ms", "since", "last_event_id", "compress"})
"""Members of a query string that may not come twice."""
MAX_FIELDS = 16
"""Members of a query string that are read. Six are the relay's; proxies and cache busters add some."""


_NONE = Headers()
_HEAD = re.compile(
    rb"GET ([!-~]++) HTTP/1\.1\r\n((?:[-!#$%&'*+.^_`|~0-9a-zA-Z]++:[\t -~\x80-\xff]*+\r\n)++)\r\n", re.ASCII
)
"""The head of a GET request (RFC 9112 §3 and §5) as the library reads it, but for odd bytes in the target."""
_CONNECTION = (["Upgrade"], ["keep-alive, Upgrade"], ["upgrade"])
"""The values of Connection that Chromium and Safari, Firefox, and nginx as its documentation has it send."""
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_OFFER = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+(?:, [-!#$%&'*+.^_`|~0-9a-zA-Z]+)*")
"""Subprotocols as `new WebSocket(url, protocols)` writes them."""


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
        self.response = _usual_answer(self._request, self._protocol) or self._protocol.accept(self._request)
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


def usual_request(data: bytes) -> Request | None:
    """Read the head of a request that came in one piece, with nothing after it. None: the library reads it.

    The library's generators read each line with two searches in a buffer, which takes 21 µs of CPU. This takes 9.
    Whatever is read here, the library would read in the same way.
    """
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    lines = found[2].decode("iso-8859-1").split("\r\n")
    if len(lines) > MAX_HEADERS:
        return None
    headers = Headers()
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        headers.set_insecure(name, value.strip(" \t"))
    if "Transfer-Encoding" in headers or "Content-Length" in headers:
        return None
    return Request(found[1].decode("ascii"), headers)


class _Accepted(Response):
    """The 101 of a usual handshake: its bytes are `body`, and it has no headers to be changed."""

    def serialize(self) -> bytes:
        """See `Response.serialize`."""
        return bytes(self.body)


def _usual_answer(request: Request, protocol: ServerProtocol) -> Response | None:
    """Accept a handshake as browsers and usual proxies write it. None: the library checks and answers it.

    The library takes 21 µs of CPU for its answer, most of it to parse lists that have one of a few values, and to
    make headers that become bytes at once. This takes 6. Whatever is accepted here, the library would answer with
    the same bytes.
    """
    values = request.headers.get_all
    keys, offers = values("Sec-WebSocket-Key"), values("Sec-WebSocket-Protocol")
    if (
        request.method != "GET"
        or request.protocol != "HTTP/1.1"
        or values("Upgrade") != ["websocket"]
        or values("Connection") not in _CONNECTION
        or values("Sec-WebSocket-Version") != ["13"]
        or len(keys) != 1
        or not _KEY.fullmatch(keys[0])
        or len(offers) > 1
        or not all(map(_OFFER.fullmatch, offers))
        or protocol.available_extensions
    ):
        return None
    head = f"{_switching(int(time.time()))}Sec-WebSocket-Accept: {accept_key(keys[0])}\r\n"
    if offers and PROTOCOL in offers[0].split(", "):
        protocol.subprotocol = Subprotocol(PROTOCOL)
        head += f"Sec-WebSocket-Protocol: {PROTOCOL}\r\n"
    protocol.accept_called = True
    return _Accepted(101, "Switching Protocols", _NONE, f"{head}\r\n".encode("ascii"))


@lru_cache(maxsize=1)
def _switching(now: int) -> str:
    date = formatdate(now, usegmt=True)
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nDate: {date}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    )


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
