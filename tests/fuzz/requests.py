"""Requests: handshakes, headers and forwarded addresses, as bytes on the wire."""

import ipaddress
import json
from collections.abc import Mapping

from starlette.requests import Request as HttpRequest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from relay.audit.chain import Link, seal
from relay.core import strict_json
from relay.core.errors import MalformedError, Refusal
from relay.core.events import Client, Event, to_record
from relay.core.grants import NO_OPTIONS
from relay.core.jws import VerifyKey
from relay.issuer.policy import EndpointTerms
from relay.issuer.service import IssuerOptions, parse_request
from relay.net.addresses import canonical_address, client_address, network_of, parse_networks
from relay.net.unauthenticated import Bounds, UnauthenticatedConnections
from relay.state.base import Place
from relay.stream.gate import Attempt, Denied, EndpointOptions, Gate, GateOptions, GateResult
from relay.stream.handshake import WebSocketHandshake, refusal_response
from relay.stream.reports import denied_event
from relay.web.client_identity import client_reader
from relay.web.cookies import read_cookie
from relay.web.csrf import CsrfOptions, check_csrf, is_bearer
from tests.fuzz.credentials import COOKIES
from tests.fuzz.target import Target, at_once, latin
from tests.support.scoped_tokens import AUDIENCE, EXPECTED, KEYS

ORIGIN = EXPECTED.issuer
TRUSTED = parse_networks(("10.0.0.0/8", "fd00::/8"))
CSRF = CsrfOptions(origins=frozenset({ORIGIN}), require_header=False)
CLIENT_OF = client_reader(TRUSTED)


class Folder:
    """Keys that are all here."""

    async def keys_for(self, _token: str, *, caller: str = "") -> Mapping[str, VerifyKey]:
        return KEYS

    def is_revoked(self, _kid: str) -> bool:
        return False


class NothingClaimed:
    """A store in which a token was never used."""

    async def claim(
        self, _jti: str, *, expires_at: float, issued_at: float | None = None, place: Place | None = None
    ) -> bool:
        return expires_at > 0

    async def revoke(self, key: str, *, at: float, until: float) -> None:
        """Not asked for."""

    def revoked_at(self, _key: str) -> float | None:
        return None


GATE = Gate(
    GateOptions(
        issuer=EXPECTED.issuer,
        endpoints={
            "/ws/prices": EndpointOptions(
                name="prices", path="/ws/prices", audience=AUDIENCE, max_age_s=3600, options=NO_OPTIONS
            )
        },
        allowed_origins=frozenset({ORIGIN}),
        transports=("subprotocol", "query", "first_message"),
    ),
    keys=Folder(),
    state=NothingClaimed(),
    unauthenticated=UnauthenticatedConnections(Bounds(limit=100, crowd=10_000)),
    closed=lambda: None,
)


def handshake(data: bytes) -> None:
    """Any bytes on the stream's port: no request, or one that the gate refuses, and its record can be written."""
    protocol = ServerProtocol()
    protocol.receive_data(data)
    for request in protocol.events_received():
        assert isinstance(request, Request)
        address = client_address("10.0.0.1", request.headers.get_all("X-Forwarded-For"), TRUSTED)
        client = Client(address=address, peer="10.0.0.1", user_agent=request.headers.get("User-Agent", ""))
        handshake_ = WebSocketHandshake(request, protocol)
        result: GateResult = GATE.inspect(handshake_, client)
        if isinstance(result, Denied):
            result = at_once(GATE.identify(result, handshake_))
        if isinstance(result, Attempt):
            assert request.path.partition("?")[0] == "/ws/prices"
            assert request.headers.get_all("Origin") in ([], [ORIGIN])
            result = at_once(GATE.redeem(result, result.request.token, reserve=lambda _session: None))
        assert isinstance(result, Denied), "nobody forges a token"
        _write_down(denied_event(result))
        refusal_response(result.refusal).serialize()
        return


def _write_down(event: Event) -> None:
    record = to_record(event, timestamp="2026-01-01T00:00:00.000Z", event_id="0" * 32, node="n")
    line, _ = seal(record, Link("w", 0, "0" * 64))
    assert b"\n" not in line
    assert line.isascii()


def http_head(data: bytes) -> None:
    """Any headers that an HTTP parser lets through: who asks, from where, with which session."""
    pairs = [line.partition(b":") for line in data.split(b"\n")]
    headers = [(name.lower(), value.strip()) for name, _, value in pairs]
    request = HttpRequest(
        {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": ("10.0.0.1", 1)}
    )
    refusal = check_csrf(request, CSRF)
    if refusal is None and not is_bearer(request):
        names = [name for name, _ in headers]
        assert {b"origin", b"sec-fetch-site", b"x-relay-csrf"} & set(names)
    client = CLIENT_OF(request)
    assert str(ipaddress.ip_address(client.address)) == client.address
    found = read_cookie(request, COOKIES)
    assert isinstance(found, Refusal) or found


def forwarded(data: bytes) -> None:
    """Any X-Forwarded-For, one header a line: always an address, and only behind a proxy another than the peer's."""
    values = [latin(line) for line in data.split(b"\n")]
    for peer in ("10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "192.0.2.1"):
        found = client_address(peer, values, TRUSTED)
        assert str(ipaddress.ip_address(found)) == found
        assert network_of(found)
        if peer == "192.0.2.1":
            assert found == peer
    for value in values:
        assert canonical_address(canonical_address(value)) == canonical_address(value)
        assert client_address(value, [], TRUSTED) in (value, canonical_address(value), *_address(value))


def _address(text: str) -> list[str]:
    try:
        return [str(ipaddress.ip_address(text))]
    except ValueError:
        return []


def token_request(data: bytes) -> None:
    """Any body of a token request, from a browser and from a server."""
    try:
        body = strict_json.parse_object(data)
    except ValueError as error:
        str(error).encode()
        return
    for bearer in (False, True):
        try:
            asked = parse_request(body, ISSUER, origin=ORIGIN, bearer=bearer)
        except MalformedError as error:
            error.detail.encode()
            continue
        if isinstance(asked, Refusal):
            str(asked).encode()
        else:
            assert asked.origin in ("", ORIGIN)
            assert asked.endpoint == "prices"


def path(data: bytes) -> None:
    """Any path before a good handshake: one spelling gets past, all others are refused."""
    rest = b" HTTP/1.1\r\n" + b"\r\n".join(_GOOD.split(b"\r\n")[1:])
    handshake(b"GET " + data.replace(b"\r", b"").replace(b"\n", b"") + rest)


def json_text(data: bytes) -> None:
    """Any bytes as the JSON of a request's body: read so that it can be written again, or a ValueError."""
    try:
        value = strict_json.parse_object(data)
    except ValueError as error:
        str(error).encode()
        return
    assert json.loads(json.dumps(value, ensure_ascii=False).encode()) == value


ISSUER = IssuerOptions(
    issuer=EXPECTED.issuer,
    ttl_s=30,
    max_s=604_800,
    leeway_s=60,
    endpoints={"prices": EndpointTerms(audience=AUDIENCE, channels=("prices.>",))},
    default_endpoint="prices",
    allowed_origins=frozenset({ORIGIN}),
)
_UPGRADE = (
    b"GET /ws/prices?token=a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_GOOD = _UPGRADE + b"Origin: https://app.example.com\r\n\r\n"
_BY_PROTOCOL = (
    _UPGRADE.replace(b"?token=a", b"?channels=prices.A,prices.B&interval_ms=100")
    + b"Sec-WebSocket-Protocol: relay.v1, bearer.a\r\nX-Forwarded-For: 192.0.2.1, [2001:db8::1]:44\r\n\r\n"
)

TARGETS = (
    Target(name="handshake", feed=handshake, seeds=(_GOOD, _BY_PROTOCOL, _UPGRADE + b"Origin: \xff\r\n\r\n")),
    Target(
        name="path",
        feed=path,
        seeds=(
            *(b"/ws/prices" + end for end in (b"", b"?", b"?token=%ff", b"/../admin", b";x=1", b"?a=%00&=&")),
            b"//ws/prices",
            b"http://evil/ws/prices",
            b"/%77s/prices",
        ),
    ),
    Target(
        name="http-head",
        feed=http_head,
        seeds=(
            b"Origin: https://app.example.com\nCookie: access-token=a; access-token=b",
            b"Sec-Fetch-Site: same-origin\nAuthorization: Bearer a\nX-Forwarded-For: \xb2, 1",
            b"X-Relay-CSRF: 1\ncookie: authjs.session-token.0=a",
        ),
    ),
    Target(
        name="forwarded",
        feed=forwarded,
        seeds=(
            b"192.0.2.1, 10.0.0.2\n10.0.0.3",
            b"[2001:db8::1]:443, 192.0.2.1:80",
            b"::ffff:192.0.2.1, fe80::1%eth0, [::1]",
            b"1.2.3.4.5, 01.2.3.4, ::1%\xe9",
        ),
    ),
    Target(
        name="token-request",
        feed=token_request,
        seeds=(
            b'{"endpoint":"prices","channels":["prices.BTC-USD"],"origin":"https://app.example.com"}',
            b'{"channels":["prices.*",""],"\\ud800":1}',
            b"{}",
        ),
    ),
    Target(
        name="json",
        feed=json_text,
        seeds=(
            b'{"a":[1.5,"\\ud83d\\ude00",null]}',
            b'{"a":1e999}',
            b'{"a":"\\ud800"}',
            b'{"a":' + b"[" * 2000,
        ),
    ),
)
