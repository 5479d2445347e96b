"""The request that begins an event stream (WHATWG HTML §9.2): what it asks for, and the HTTP answers to it.

Browsers that can't open a WebSocket take the same URL with `Accept: text/event-stream`. All checks are those of the
gate. What differs is in this file: the token comes in `Authorization` or in the query string, and pages of other
origins need CORS. `OPTIONS` is CORS's question before a request. `HEAD` answers what can be said without a token's use.
"""

import http
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec.structs import replace
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from relay.core.bearer import bearer_token
from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.messages import MAX_FRAME_BYTES, parse_since, parse_subscribe
from relay.stream.gate import Admitted, Denied, HandshakeRequest
from relay.stream.handshake import (
    asks_for_compression,
    check_count,
    check_head,
    malformed,
    query_tokens,
    read_query,
    read_subscriptions,
    refusal_response,
)
from relay.web.headers import SECURITY_HEADERS

MOST_REMEMBERED: Final = 20_000
"""Tokens of event streams that are remembered, the newest ones: 4 MB at most. A forgotten one is a replay."""
EVENT_STREAM: Final = "text/event-stream"
TRANSPORT: Final = "sse"
"""How the token came, in audit records."""
PREFLIGHT_S: Final = 600
"""Seconds for which a browser keeps the answer to a preflight. Chromium keeps none for longer than two hours."""


def asks_for_events(request: Request) -> bool:
    """Tell whether a request is for an event stream, or is CORS's question before one."""
    headers = request.headers
    if "Upgrade" in headers:
        return False
    if request.method == "OPTIONS":
        return "Origin" in headers and "Access-Control-Request-Method" in headers
    accepted = [part for value in headers.get_all("Accept") for part in value.split(",")]
    return request.method in ("GET", "HEAD") and any(
        part.partition(";")[0].strip().lower() == EVENT_STREAM for part in accepted
    )


class SseHandshake:
    """One request for an event stream, as the gate wants it: see `relay.stream.gate.Handshake`."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.method = request.method
        self.path = request.path.partition("?")[0]
        self.origins: Sequence[str] = request.headers.get_all("Origin")
        self.same_origin = request.headers.get_all("Sec-Fetch-Site") == ["same-origin"]

    @property
    def last_event_id(self) -> str:
        """The value of Last-Event-ID; "" if there is none. An EventSource that connects again by itself sends it."""
        values = self._request.headers.get_all("Last-Event-ID")
        return values[0] if len(values) == 1 else ""

    def check(self) -> Refusal | None:
        """Check what the library does not. It has read the request, which has no body."""
        return check_head(self._request)

    def read(self, *, transports: Collection[str]) -> HandshakeRequest | Refusal:
        """Read the token and the subscriptions. A token in the query string needs the transport "query"."""
        if self.method == "OPTIONS":  # browsers send it without the headers that it asks about
            return HandshakeRequest(token="", transport=TRANSPORT, channels=(), interval_ms=0)
        values = read_query(self._request)
        if isinstance(values, Refusal):
            return values
        token = self._token(values, in_query="query" in transports)
        if isinstance(token, Refusal):
            return token
        request = HandshakeRequest(
            token=token,
            transport=TRANSPORT,
            channels=(),
            interval_ms=0,
            # the header is newer: an EventSource that connects again asks for the URL of its first request
            last_id=self.last_event_id or values.get("last_event_id", ""),
            compress=asks_for_compression(values) and self._accepts_gzip(),
        )
        try:
            return self._with_subscriptions(request, values)
        except MalformedError as error:
            return malformed(str(error))

    def presented(self) -> tuple[str, str]:
        """See `Handshake.presented`."""
        found = query_tokens(self._request)
        for value in self._request.headers.get_all("Authorization"):
            in_header = bearer_token([value])
            found += [in_header] if isinstance(in_header, str) else []
        return (found[0], TRANSPORT) if len(found) == 1 else ("", "")

    def _accepts_gzip(self) -> bool:
        """Tell whether the client reads gzip (RFC 9110 §12.5.3). Browsers say so with each request."""
        accepted = ",".join(self._request.headers.get_all("Accept-Encoding")).replace(" ", "").lower()
        members = [member.partition(";") for member in accepted.split(",")]
        return any(name == "gzip" and weight.rstrip("0.") != "q=" for name, _, weight in members)

    def _token(self, values: Mapping[str, str], *, in_query: bool) -> str | Refusal:
        credentials = self._request.headers.get_all("Authorization")
        if "token" not in values:
            return bearer_token(credentials)
        if credentials:
            return Refusal(reason=Reason.TOKEN_REPEATED)
        if not in_query:
            detail = "tokens.transports does not allow tokens by query. Send it as Authorization: Bearer."
            return Refusal(reason=Reason.TOKEN_TRANSPORT, detail=detail)
        return values["token"] or Refusal(reason=Reason.TOKEN_MISSING)

    def _with_subscriptions(
        self, request: HandshakeRequest, values: Mapping[str, str]
    ) -> HandshakeRequest | Refusal:
        """Read the subscriptions, of the query string or of Relay-Subscribe, which has room for long lists."""
        lists = self._request.headers.get_all("Relay-Subscribe")
        if not lists:
            subscriptions = read_subscriptions(values)
            if isinstance(subscriptions, Refusal):
                return subscriptions
            since = parse_since(values["since"]) if "since" in values else {}
            return replace(request, channels=subscriptions[0], interval_ms=subscriptions[1], since=since)
        if len(lists) > 1 or {"channels", "interval_ms", "since"} & values.keys():
            return malformed("Subscriptions come once: in the query string or in the header Relay-Subscribe.")
        if len(lists[0]) > MAX_FRAME_BYTES:
            return malformed(f"The header Relay-Subscribe has at most {MAX_FRAME_BYTES} bytes.")
        frame = parse_subscribe(lists[0])
        if refusal := check_count(frame.channels):
            return refusal
        return replace(
            request, channels=tuple(frame.channels), interval_ms=frame.interval_ms, since=frame.since
        )


class EventSources:
    """Tells an EventSource that connects again by itself from somebody who replays its token.

    It sends the same URL and so the spent token, with the header Last-Event-ID, and it is where the token was used.
    """

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}  # by the token's `jti`

    def remember(self, admitted: Admitted) -> None:
        """Remember by whom a token was used."""
        self._addresses[admitted.claims.jti] = admitted.attempt.client.address
        if len(self._addresses) > MOST_REMEMBERED:
            del self._addresses[next(iter(self._addresses))]

    def explain(self, denied: Denied, handshake: SseHandshake) -> Denied:
        """Return a refusal with the reason `sse_reconnect`, if it is one of these; otherwise as it was."""
        is_spent = denied.refusal.reason in (Reason.TOKEN_REPLAYED, Reason.TOKEN_EXPIRED)
        if not (is_spent and denied.claims and handshake.last_event_id):
            return denied
        if self._addresses.get(denied.claims.jti) != denied.client.address:
            return denied
        return replace(denied, refusal=Refusal(reason=Reason.SSE_RECONNECT))


def cors_headers(origin: str) -> dict[str, str]:
    """Return what lets a page of an allowed origin read an answer. There are no credentials: cookies mean nothing."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "Retry-After",
        "Vary": "Origin",
    }


def preflight_response(cors: Mapping[str, str]) -> Response:
    """Return the answer to CORS's question, for an origin that may ask."""
    headers = {
        **SECURITY_HEADERS,
        **cors,
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Allow-Headers": "authorization, last-event-id, relay-subscribe",
        "Access-Control-Max-Age": str(PREFLIGHT_S),
        "Connection": "close",
    }
    return _response(http.HTTPStatus.NO_CONTENT, headers)


def refused_response(denied: Denied, cors: Mapping[str, str]) -> Response:
    """Return the answer to a refused request. A 204 has no body, and stops an EventSource (WHATWG HTML §9.2.3)."""
    response = refusal_response(denied.refusal, cors)
    if response.status_code == http.HTTPStatus.NO_CONTENT:
        return _response(http.HTTPStatus.NO_CONTENT, {**SECURITY_HEADERS, **cors, "Connection": "close"})
    return response


def events_response(cors: Mapping[str, str]) -> Response:
    """Return the head of an answer with events. It ends with the connection, also for HTTP/1.0 proxies."""
    headers = {
        **SECURITY_HEADERS,
        **cors,
        "Content-Type": EVENT_STREAM,
        # no proxy may store the events, compress them, or wait for more of them; nginx needs its own header for that
        "Cache-Control": "no-store, no-transform",
        "X-Accel-Buffering": "no",
        "Connection": "close",
    }
    return _response(http.HTTPStatus.OK, headers)


def _response(status: http.HTTPStatus, headers: Mapping[str, str]) -> Response:
    return Response(status, status.phrase, Headers(headers))
