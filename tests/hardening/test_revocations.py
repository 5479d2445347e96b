"""Revocations: a session, a user, a token; live sockets, later tokens, a restart, races."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.forged_tokens import issuer_key
from tests.support.jws_forgery import claims_of
from tests.support.operators import OPERATORS, operate, revoke
from tests.support.raw_http import CLOSED, bearing, connect_once, knock, upgrade
from tests.support.relay_process import SECRET, Relay, running
from tests.support.shared_relay import assert_quiet

ROUNDS = 15


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators."""
    with running(tmp_path_factory.mktemp("revoking"), extra=OPERATORS) as running_relay:
        yield running_relay
        assert_quiet(running_relay)


def someone() -> str:
    """Return a user whom no other test revokes."""
    return f"user-{secrets.token_hex(4)}"


def without_id(user: str, issued_at: int) -> str:
    """Return a session's JWT of a backend that gives sessions no id."""
    claims = {
        "sub": user,
        "roles": ["trader"],
        "token_use": "access",
        "iat": issued_at,
        "exp": issued_at + 900,
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


async def let_in(relay: Relay, session: str) -> None:
    """Wait until a session's token opens the gate: those of the very second of a revocation don't."""
    async with asyncio.timeout(10):
        while await refused(relay, await relay.token(session)):
            pass


async def refused(relay: Relay, token: str) -> bool:
    """Tell whether an unused token is refused as any other bad one."""
    answer = await knock(relay, fields=[*upgrade(relay), bearing(token)])
    return answer.status == 401 and answer.code == "invalid_token"


async def test_a_session_is_cut_off_by_its_id(relay: Relay) -> None:
    """All of its sockets are closed with 4501, its tokens refused; the user's other session goes on."""
    user, sid = someone(), secrets.token_hex(8)
    session, other = relay.session(sub=user, sid=sid), relay.session(sub=user)
    unused = await relay.token(session)
    async with (
        relay.connect(await relay.token(session)) as first,
        relay.connect(await relay.token(session)) as second,
        relay.connect(await relay.token(other)) as third,
    ):
        assert await revoke(relay, sid=sid) == 2
        assert [await one.closed() for one in (first, second)] == [(4501, "session_revoked")] * 2
        await third.send(type="ping", id=1)
        while (await third.next())["type"] != "pong":
            pass
    assert await refused(relay, unused)
    assert (await relay.ask(session)).status_code == 401
    assert (await relay.ask(other)).status_code == 200
    assert sid not in relay.audit_path.read_text() + relay.log_path.read_text()


async def test_a_key_of_its_own_folder_is_revoked_there(relay: Relay) -> None:
    """Otherwise its issuer could go on signing what its gate refuses; the answer says what to run."""
    answer = await operate(relay, "POST", "/v1/revocations", body={"kid": issuer_key(relay).kid})
    assert answer.status_code == 400
    assert "relay keys revoke" in answer.json()["message"]
    assert not await refused(relay, await relay.token())


async def test_a_revocation_names_who_asked(relay: Relay) -> None:
    """The audit log has the operator, the session's reference and how many connections were closed."""
    user = someone()
    session = relay.session(sub=user)
    async with relay.connect(await relay.token(session)) as socket:
        accepted = await relay.audited("connect.accepted", user=user)
        ref = accepted["relay"]["session"]["ref"]
        assert await revoke(relay, ref=ref) == 1
        assert (await socket.closed())[0] == 4501
    record = await relay.recorded(
        lambda one: (
            one["event"]["action"] == "session.revoked" and one["relay"].get("session", {}).get("ref") == ref
        ),
    )
    assert (record["relay"]["operator"]["id"], record["relay"]["connections"]) == ("ops", 1)
    assert (await relay.ask(session)).status_code == 401


async def test_a_user_is_cut_off_until_the_next_login(relay: Relay) -> None:
    """Sessions from before are refused, also those that were not connected; one that began later is not."""
    user, now = someone(), int(time.time())
    connected, idle = relay.session(sub=user, iat=now - 60), relay.session(sub=user, iat=now - 5)
    unused = await relay.token(idle)
    async with relay.connect(await relay.token(connected)) as socket:
        assert await revoke(relay, sub=user) == 1
        assert (await socket.closed())[0] == 4501
    assert await refused(relay, unused)
    for session in (connected, idle):
        assert (await relay.ask(session)).json()["code"] == "invalid_session"
    assert (await relay.ask(relay.session(sub="bystander"))).status_code == 200
    await let_in(relay, relay.session(sub=user, iat=int(time.time()) + 1))


@pytest.mark.parametrize("connected", [True, False])
async def test_a_renewed_access_token_is_no_new_login(relay: Relay, *, connected: bool) -> None:
    """A session that was seen before its user was cut off stays out, although a refresh moves its `iat`."""
    user, sid = someone(), secrets.token_hex(8)
    token = await relay.token(relay.session(sub=user, sid=sid))
    if connected:
        async with relay.connect(token):
            await revoke(relay, sub=user)
    else:
        await revoke(relay, sub=user)
    renewed = relay.session(sub=user, sid=sid, iat=int(time.time()) + 1)
    assert (await relay.ask(renewed)).status_code == 401


async def test_a_log_in_by_a_clock_that_is_ahead_is_cut_off_with_its_user(relay: Relay) -> None:
    """The relay's clock is behind the backend's: a session that was seen before the revocation is not newer than it."""
    user = someone()
    session = without_id(user, int(time.time()) + 2)
    unused = await relay.token(session)
    await revoke(relay, sub=user)
    assert await refused(relay, unused)
    assert (await relay.ask(session)).status_code == 401


async def test_a_session_without_an_id_comes_back_with_a_login(relay: Relay) -> None:
    """It is known by its user only, so a log-out would otherwise be final; its tokens have the time of its start."""
    user = someone()
    old = without_id(user, int(time.time()) - 60)
    async with relay.connect(await relay.token(old)) as socket:
        await revoke(relay, sub=user)
        assert (await socket.closed())[0] == 4501
    assert (await relay.ask(old)).status_code == 401
    await let_in(relay, without_id(user, int(time.time()) + 1))


async def test_a_token_is_cut_off(relay: Relay) -> None:
    """Unused it opens nothing, used its socket is closed; the session's other tokens and sockets are not touched."""
    session = relay.session(sub=someone())
    used, unused, other = [await relay.token(session) for _ in range(3)]
    async with relay.connect(used) as socket:
        assert await revoke(relay, jti=claims_of(used)["jti"]) == 1
        assert await socket.closed() == (4501, "session_revoked")
    assert await revoke(relay, jti=claims_of(unused)["jti"]) == 0
    assert await refused(relay, unused)
    async with relay.connect(other):
        pass
    await relay.audited("connect.denied", reason="session_revoked")


async def test_a_token_that_refreshed_a_socket_can_end_it(relay: Relay) -> None:
    """The one that opened it too."""
    session = relay.session(sub=someone())
    for which in (0, 1):
        tokens = [await relay.token(session) for _ in range(2)]
        async with relay.connect(tokens[0], query="?channels=prices.NONE") as socket:
            await socket.send(type="refresh", id=1, token=tokens[1])
            while (await socket.next())["type"] != "refreshed":
                pass
            assert await revoke(relay, jti=claims_of(tokens[which])["jti"]) == 1
            assert (await socket.closed())[0] == 4501


async def test_nothing_comes_after_the_close(relay: Relay) -> None:
    """What is published from the moment of the answer on is not sent."""
    user = someone()
    session = relay.session(sub=user)
    async with relay.connect(await relay.token(session), query="?channels=prices.AFTER") as socket:
        await socket.read("subscribed")
        await revoke(relay, sub=user)
        await relay.publish("prices.AFTER", "too late")
        assert (await socket.closed())[0] == 4501
        with pytest.raises(ConnectionClosed):  # and nothing before it
            await socket.websocket.recv()


async def test_a_reader_that_stalls_is_cut_off_all_the_same(relay: Relay) -> None:
    """It never answers the close; the connection is gone for the relay, and is not listed any more."""
    user = someone()
    token = await relay.token(relay.session(sub=user))
    async with relay.connect(token) as socket:
        socket.websocket.transport.pause_reading()
        assert await revoke(relay, sub=user) == 1
        record = await relay.audited("connection.closed", user=user)
        assert record["relay"]["connection"]["close_code"] == 4501
        rows = (await operate(relay, "GET", "/v1/connections?limit=1000")).json()["connections"]
        assert user not in [row["user"] for row in rows]
        socket.websocket.transport.resume_reading()


@pytest.mark.parametrize("kind", ["sub", "jti"])
async def test_no_socket_outlives_a_revocation_of_the_same_moment(relay: Relay, kind: str) -> None:
    """Each while its token connects: refused, or closed with 4501, and never left open."""

    async def one_round() -> bytes | None:
        user = someone()
        token = await relay.token(relay.session(sub=user))
        name = user if kind == "sub" else claims_of(token)["jti"]
        got, _ = await asyncio.gather(connect_once(relay, token), revoke(relay, **{kind: name}))
        return got

    outcomes = [await one_round() for _ in range(ROUNDS)]
    assert all(got is None or got.endswith(CLOSED) for got in outcomes), outcomes


@pytest.mark.parametrize(
    "body",
    [
        {},
        None,
        {"sid": ""},
        {"sid": 1.5},
        {"sid": True},
        {"jti": 1},
        {"sub": None},
        {"sub": "x" * 257},
        {"ref": "x"},
        {"ref": "A" * 32},
        {"jti": ["x"]},
        {"sid": "a", "sub": "b"},
        {"user": "a"},
        {"sub": "a", "reason": "b"},
    ],
    ids=str,
)
async def test_a_body_that_does_not_name_one_thing(relay: Relay, body: Any) -> None:
    """Nothing is revoked, and one sentence says what to send."""
    answer = await operate(relay, "POST", "/v1/revocations", body=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_revocations_survive_a_kill(tmp_path: Path) -> None:
    """After kill -9 and a new start, session, user and token are still refused."""
    with running(tmp_path, extra=OPERATORS) as relay:
        user, sid = someone(), secrets.token_hex(8)
        by_sid, by_user = relay.session(sid=sid), relay.session(sub=user)
        token = await relay.token()
        for what in ({"sid": sid}, {"sub": user}, {"jti": claims_of(token)["jti"]}):
            await revoke(relay, **what)
        relay.kill()
        relay.start()
        assert await refused(relay, token)
        for session in (by_sid, by_user):
            assert (await relay.ask(session)).status_code == 401
        assert (await relay.ask()).status_code == 200
