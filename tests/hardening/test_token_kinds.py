"""A token of one kind used as another: each credential opens its own doors, and none of the others."""

import time

import pytest

from tests.hardening.forgeries import claims, signed
from tests.hardening.wire import Answer, bearing, exchange, head, knock, post, upgrade
from tests.keys.forging import forge
from tests.stream.wire import open_wire, text
from tests.support.service import PUBLISHER_KEY, SECRET, Relay

ISSUER = ("cookie", "bearer")
GATE = ("subprotocol", "query", "first message", "refresh frame")
DOORS = (*ISSUER, "refresh cookie", *GATE, "publish")
OPENS: dict[str, tuple[str, ...]] = {
    "session": ISSUER,
    "refresh": (),
    "session without its mark": (),
    "scoped": GATE,
    "publisher key": ("publish",),
    "scoped, of the backend": (),
    "session, of the relay's key": (),
    "scoped, typed as any JWT": (),
    "session, called scoped": (),
}
"""Which doors each kind opens. The marks are `typ`, `scope` and `aud` of a scoped token, `token_use` of a session."""


async def credential(relay: Relay, kind: str) -> str:
    """Return a fresh, valid credential of a kind; the last four are signed validly by those who should not."""
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
        case "publisher key":
            return PUBLISHER_KEY
        case "scoped, of the backend":
            both = person | claims(relay) | {"token_use": "access"}
            return forge({"typ": "scoped+jwt", "alg": "HS256"}, both, SECRET.encode())
        case "session, of the relay's key":
            return signed(relay, person | {"token_use": "access"}, {"typ": "JWT"})
        case "scoped, typed as any JWT":
            return signed(relay, claims(relay), {"typ": "JWT"})
        case _:
            return signed(relay, person | {"token_use": "access"})


async def opens(relay: Relay, door: str, value: str) -> bool:
    """Try a credential at a door; what refuses it must refuse it as no credential at all."""
    match door:
        case "cookie" | "refresh cookie":
            name = "access-token" if door == "cookie" else "refresh-token"
            fields = [("Origin", relay.url), ("Cookie", f"{name}={value}")]
            answer = await post(relay, "/auth/ws-token", fields)
        case "bearer":
            answer = await post(relay, "/auth/ws-token", [("Authorization", f"Bearer {value}")])
        case "subprotocol":
            answer = await knock(relay, fields=[*upgrade(relay), bearing(value)])
        case "query":
            answer = await knock(relay, f"/ws/prices?token={value}")
        case "first message":
            async with open_wire(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
                assert await wire.shake() == 101
                wire.send(text(type="auth", token=value), text(type="auth", token=value))
                ending = await wire.ending()
                assert (ending.code == 3000) == (ending.before == []), (
                    "1008 for the second, if the first was good"
                )
                return ending.code == 1008
        case "refresh frame":
            async with relay.connect() as socket:
                await socket.read("error")
                await socket.send(type="refresh", id=1, token=value)
                message = await socket.next()
                assert message["type"] == "refreshed" or message["code"] == "invalid_token"
                return bool(message["type"] == "refreshed")
        case _:
            answer = await publish(relay, ("Authorization", f"Bearer {value}"))
    assert answer.status in (101, 200, 401), (door, answer)
    return answer.status != 401


async def publish(relay: Relay, *fields: tuple[str, str], query: str = "") -> Answer:
    """Publish a tick with these headers for a proof."""
    body = b'{"channel":"prices.KINDS","data":1}'
    first = [("Host", "127.0.0.1"), ("Content-Length", str(len(body)))]
    return await exchange(relay.ports[2], head("POST", f"/v1/publish{query}", [*first, *fields]) + body)


@pytest.mark.parametrize("kind", OPENS)
async def test_each_kind_opens_its_own_doors_alone(relay: Relay, kind: str) -> None:
    """Every credential at every door: exactly those of its kind open, and the rest say 401 or 3000."""
    opened = [door for door in DOORS if await opens(relay, door, await credential(relay, kind))]
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
