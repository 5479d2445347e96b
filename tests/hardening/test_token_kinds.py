"""A token of one kind used as another: each credential opens its own doors, and none of the others."""

import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from relay.verify import MemorySingleUse, Verifier
from tests.support.forged_tokens import claims, signed
from tests.support.jws_forgery import forge
from tests.support.protected_service import Service, serving
from tests.support.raw_http import Answer, bearing, exchange, head, is_unspent, knock, post, upgrade
from tests.support.raw_websocket import open_raw_websocket, text
from tests.support.relay_process import PUBLISHER_KEY, REPORTS, SECRET, Relay

ISSUER = ("cookie", "bearer")
GATE = ("subprotocol", "query", "first message", "refresh frame")
SERVICE = ("service",)
DOORS = (*ISSUER, "refresh cookie", *GATE, "publish", *SERVICE)
OPENS: dict[str, tuple[str, ...]] = {
    "session": ISSUER,
    "refresh": (),
    "session without its mark": (),
    "scoped": GATE,
    "scoped, for a service": SERVICE,
    "publisher key": ("publish",),
    "scoped, of the backend": (),
    "session, of the relay's key": (),
    "scoped, typed as any JWT": (),
    "session, called scoped": (),
    "scoped, for a service, at a socket": (),
    "scoped, at a service": (),
}
"""Which doors each kind opens. The marks are `typ`, `scope` and `aud` of a scoped token, `token_use` of a session."""


async def credential(relay: Relay, kind: str) -> str:
    """Return a fresh, valid credential of a kind; the last six are signed validly by those who should not."""
    now = int(time.time())
    person = {"sub": "user-1", "roles": ["trader"], "sid": "s", "iat": now, "exp": now + 30}
    match kind:
        case "session":
            return relay.session()
        case "refresh":
            return relay.session(token_use="refresh")
        case "session without its mark":
            return relay.session(token_use=None)
        case "scoped":
            return await relay.token()
        case "scoped, for a service":
            return await relay.token(endpoint="reports")
        case "publisher key":
            return PUBLISHER_KEY
        case "scoped, of the backend":
            both = person | claims(relay) | {"token_use": "access"}
            return forge({"typ": "scoped+jwt", "alg": "HS256"}, both, SECRET.encode())
        case "session, of the relay's key":
            return signed(relay, person | {"token_use": "access"}, {"typ": "JWT"})
        case "scoped, typed as any JWT":
            return signed(relay, claims(relay), {"typ": "JWT"})
        case "scoped, for a service, at a socket":
            return signed(relay, claims(relay, scope="call", channels=None))
        case "scoped, at a service":
            return signed(relay, claims(relay, aud=REPORTS))
        case _:
            return signed(relay, person | {"token_use": "access"})


REFUSED = (401, 3000, "invalid_token")
FORBIDDEN = (403, 3003, "forbidden")
"""What the gate tells those whose token is good and for another endpoint."""


async def opens(relay: Relay, door: str, value: str, refused: tuple[int, int, str] = REFUSED) -> bool:
    """Try a credential at a door; what refuses it must refuse it in this one way."""
    status, close, code = refused if door in GATE else REFUSED
    match door:
        case "cookie":
            fields = [("Origin", relay.url), ("Cookie", f"access-token={value}")]
            answer = await post(relay, "/auth/ws-token", fields)
        case "refresh cookie":  # the backend is asked, which has made none of them
            fields = [("Origin", relay.url), ("Cookie", f"refresh-token={value}")]
            answer = await post(relay, "/auth/ws-token", fields)
        case "bearer":
            answer = await post(relay, "/auth/ws-token", [("Authorization", f"Bearer {value}")])
        case "subprotocol":
            answer = await knock(relay, fields=[*upgrade(relay), bearing(value)])
        case "query":
            answer = await knock(relay, f"/ws/prices?token={value}")
        case "service":
            async with reports(relay) as service:
                answer = await service.call(value, origin=relay.url)
        case "first message":
            async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
                assert await wire.shake() == 101
                wire.send(text(type="auth", token=value), text(type="auth", token=value))
                ending = await wire.ending()
                assert (ending.code == close) == (ending.before == []), (
                    "1008 for the second, if the first was good"
                )
                return ending.code == 1008
        case "refresh frame":
            async with relay.connect() as socket:
                await socket.read("error")
                await socket.send(type="refresh", id=1, token=value)
                message = await socket.next()
                assert message["type"] == "refreshed" or message["code"] == code
                return bool(message["type"] == "refreshed")
        case _:
            answer = await publish(relay, ("Authorization", f"Bearer {value}"))
    assert answer.status in (101, 200, status), (door, answer)
    return answer.status != status


@contextlib.asynccontextmanager
async def reports(relay: Relay) -> AsyncIterator[Service]:
    """Run the service that the relay's settings name, with the keys that the relay gives out."""
    keys = f"{relay.url}/.well-known/jwks.json"
    single_use = MemorySingleUse()
    verifier = Verifier(issuer=relay.url, audience=REPORTS, keys=keys, single_use=single_use)
    async with serving(verifier) as service:
        yield service
    await verifier.aclose()


async def publish(relay: Relay, *fields: tuple[str, str], query: str = "") -> Answer:
    """Publish a tick with these headers for a proof."""
    body = b'{"channel":"prices.KINDS","data":1}'
    first = [("Host", "127.0.0.1"), ("Content-Length", str(len(body)))]
    return await exchange(relay.ports[2], head("POST", f"/v1/publish{query}", [*first, *fields]) + body)


@pytest.mark.parametrize("kind", OPENS)
async def test_each_kind_opens_its_own_doors_alone(relay: Relay, kind: str) -> None:
    """Every credential at every door: exactly those of its kind open, and the rest refuse it as they refuse all."""
    elsewhere = ("scoped, for a service", "scoped, at a service")
    refused = FORBIDDEN if kind in elsewhere else REFUSED
    opened = [door for door in DOORS if await opens(relay, door, await credential(relay, kind), refused)]
    assert tuple(opened) == OPENS[kind]


async def test_the_two_cookies_are_not_exchanged(relay: Relay) -> None:
    """A refresh token in the session's cookie is no session, whatever the other cookie holds."""
    access, refresh = relay.session(), relay.session(token_use="refresh")
    fields = [("Origin", relay.url), ("Cookie", f"access-token={refresh}; refresh-token={access}")]
    assert (await post(relay, "/auth/ws-token", fields)).status == 401


async def test_a_credential_in_another_ones_place_is_not_looked_for(relay: Relay) -> None:
    """A session in the headers of a handshake, and a scoped token in those of a publication, are nobody's."""
    session, token = relay.session(), await relay.token()
    carried = [("Authorization", f"Bearer {session}"), ("Cookie", f"access-token={session}")]
    assert (await knock(relay, fields=[*upgrade(relay), bearing("garbage"), *carried])).status == 401
    cookie = ("Cookie", f"access-token={session}")
    assert (await publish(relay, bearing(token), cookie, query=f"?token={token}")).status == 401


async def test_the_gate_uses_up_no_token_of_a_service(relay: Relay) -> None:
    """Refused at the price socket as for another endpoint, it still opens the service, and then nothing more."""
    token = await relay.token(endpoint="reports")
    for target in ("/ws/prices", f"/ws/depth?token={token}"):
        fields = upgrade(relay) if "?" in target else [*upgrade(relay), bearing(token)]
        assert (await knock(relay, target, fields)).status in (401, 403)
    async with reports(relay) as service:
        assert (await service.call(token, origin=relay.url)).status == 200
        assert (await service.call(token, origin=relay.url)).status == 401


async def test_a_service_uses_up_no_token_of_a_socket(relay: Relay) -> None:
    """And the other way round."""
    token = await relay.token()
    async with reports(relay) as service:
        assert (await service.call(token, origin=relay.url)).status == 401
    assert await is_unspent(relay, token)
