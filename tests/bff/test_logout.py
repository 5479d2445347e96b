"""Log-out: the cookies go, the session's sockets close with 4501, its tokens die, and nobody else notices."""

import asyncio
import time
from pathlib import Path

import jwt

from tests.support.raw_http import Answer, bearing, knock, post, upgrade
from tests.support.relay_process import SECRET, Relay, running
from tests.support.shared_relay import assert_quiet


async def logout(relay: Relay, session: str, *more: tuple[str, str]) -> Answer:
    """Log out from the application's own page."""
    cookie = ("Cookie", f"access-token={session}; refresh-token=r")
    return await post(relay, "/api/auth/logout", [("Origin", relay.url), cookie, *more])


def cleared(answer: Answer) -> set[str]:
    """Return the names of the cookies that are cleared, each with the attributes it was set with."""
    headers = answer.all("set-cookie")
    assert all(
        {"HttpOnly", "Max-Age=0", "Path=/", "SameSite=lax"} <= set(header.split("; ")) for header in headers
    )
    return {header.partition("=")[0] for header in headers}


async def test_both_cookies_are_cleared(relay: Relay) -> None:
    """204 without a body, whatever the cookies held; twice is fine."""
    session = relay.session()
    for text in (session, session, "garbage", relay.session(exp=1), ""):
        answer = await logout(relay, text)
        assert (answer.status, answer.body) == (204, b"")
        assert cleared(answer) == {"access-token", "refresh-token"}
        assert answer.all("cache-control") == ["private, no-store"]


async def test_the_sessions_sockets_close_and_no_others(relay: Relay) -> None:
    """All sockets of the session get 4501 within a second; another session of the same user goes on."""
    session, other = relay.session(sub="two-sessions"), relay.session(sub="two-sessions")
    await relay.publish("prices.LOGOUT", 0)
    only = ["prices.LOGOUT"]
    async with (
        relay.connect(await relay.token(session, channels=only)) as first,
        relay.connect(await relay.token(session, channels=only)) as second,
        relay.connect(await relay.token(other, channels=only)) as third,
    ):
        await third.read("subscribed")
        await third.read("snapshot")
        assert (await logout(relay, session)).status == 204
        async with asyncio.timeout(1):
            assert await first.closed() == (4501, "session_revoked")
            assert await second.closed() == (4501, "session_revoked")
        await relay.publish("prices.LOGOUT", 1)
        assert (await third.read("update"))["data"] == 1
    record = await relay.audited("session.revoked")
    assert record["relay"]["connections"] >= 0
    assert (await relay.audited("logout"))["event"]["outcome"] == "success"


async def test_what_the_session_still_held_is_worth_nothing(relay: Relay) -> None:
    """An unused token is refused, and the cookie buys no new one and is cleared; a new session works."""
    session = relay.session(sub="returns")
    token = await relay.token(session)
    await logout(relay, session)
    assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 401
    answer = await relay.ask(session)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")
    assert {header.partition("=")[0] for header in answer.headers.get_list("set-cookie")} == {
        "access-token",
        "refresh-token",
    }
    async with relay.connect(await relay.token(relay.session(sub="returns"))):
        pass


async def test_an_access_token_that_is_over_still_ends_its_sockets(relay: Relay) -> None:
    """It lives for minutes, a socket for an hour: who logs out then is not left with open sockets."""
    now = int(time.time())
    fresh = relay.session(sub="stays-long", sid="stays-long-1", iat=now - 160)
    over = relay.session(sub="stays-long", sid="stays-long-1", iat=now - 160, exp=now - 90)
    async with relay.connect(await relay.token(fresh)) as socket:
        assert (await relay.ask(over)).json()["code"] == "invalid_session"
        assert (await logout(relay, over)).status == 204
        assert (await socket.closed())[0] == 4501
    assert (await relay.ask(fresh)).status_code == 401


async def test_a_log_out_that_ends_nothing_is_in_the_log(relay: Relay) -> None:
    """Whose session it was can't be told of one that ended long ago."""
    assert (await logout(relay, relay.session(iat=1, exp=2))).status == 204
    await relay.audited("logout", reason="session_expired")


async def test_without_a_session_id_all_of_the_user_are_ended(relay: Relay) -> None:
    """A backend that gives sessions no id: log-out means the user, and a later log-in lifts it."""
    now = int(time.time())

    def plain(issued_at: int) -> str:
        claims = {
            "sub": "no-ids",
            "roles": ["trader"],
            "token_use": "access",
            "iat": issued_at,
            "exp": now + 900,
        }
        return jwt.encode(claims, SECRET, algorithm="HS256")

    laptop, phone = plain(now - 20), plain(now - 10)
    async with (
        relay.connect(await relay.token(laptop)) as first,
        relay.connect(await relay.token(phone)) as second,
    ):
        await logout(relay, laptop)
        assert (await first.closed())[0] == (await second.closed())[0] == 4501
    assert (await relay.ask(phone)).status_code == 401
    assert (await relay.ask(plain(int(time.time()) + 1))).status_code == 200


async def test_two_cookies_end_nobodys_session(relay: Relay) -> None:
    """With a planted second cookie it can't be told whose session it is; the own cookies go all the same."""
    mine, planted = relay.session(), relay.session()
    async with relay.connect(await relay.token(mine)) as socket:
        await socket.read("error")
        answer = await post(
            relay,
            "/api/auth/logout",
            [("Origin", relay.url), ("Cookie", f"access-token={planted}; access-token={mine}")],
        )
        assert (answer.status, cleared(answer)) == (204, {"access-token", "refresh-token"})
        await socket.send(type="ping", id=1)
        assert (await socket.read("pong"))["id"] == 1


async def test_a_log_out_outlives_the_process(tmp_path: Path) -> None:
    """After kill -9 and a new start the session's tokens and cookie are still refused."""
    with running(tmp_path, bff='backend = "http://127.0.0.1:9"') as relay:
        session = relay.session()
        token = await relay.token(session)
        assert (await logout(relay, session)).status == 204
        relay.kill()
        relay.start()
        assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 401
        assert (await relay.ask(session)).status_code == 401
    assert_quiet(relay)
