"""Log-out: the cookies go, the session's sockets close with 4501, its tokens die, and nobody else notices."""

import asyncio
import contextlib
import secrets
import sqlite3
import time
from pathlib import Path

import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey

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
    """Both cookies are cleared, whatever they held; twice is fine. Only a session that can't be told is no 204."""
    session = relay.session()
    for text in (session, session, "garbage", relay.session(exp=1), ""):
        answer = await logout(relay, text)
        if text == session:
            assert (answer.status, answer.body) == (204, b"")
        else:
            assert (answer.status, answer.code) == (200, "session_unknown")
            assert "could not be told" in answer.json["message"]
        assert cleared(answer) == {"access-token", "refresh-token"}
        assert answer.all("cache-control") == ["private, no-store"]
    bare = await post(relay, "/api/auth/logout", [("Origin", relay.url)])
    assert (bare.status, cleared(bare)) == (204, {"access-token", "refresh-token"})


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


@pytest.mark.parametrize(
    ("cookie", "reason"),
    [
        ("access-token={old}; refresh-token=r", "session_expired"),
        ("access-token=stale-and-opaque", "session_invalid"),
        ("access-token.1=a-chunk-without-the-first", "session_invalid"),
        ("access-token.0=a; access-token.0=b", "session_repeated"),
        ("refresh-token=r", "session_missing"),
    ],
)
async def test_a_log_out_that_ends_nothing_says_so(relay: Relay, cookie: str, reason: str) -> None:
    """The answer and a record say that no session was ended, because none can be told."""
    old = relay.session(iat=1, exp=2)
    answer = await post(
        relay, "/api/auth/logout", [("Origin", relay.url), ("Cookie", cookie.format(old=old))]
    )
    assert (answer.status, answer.code) == (200, "session_unknown")
    record = await relay.audited("logout", reason=reason)
    assert record["event"]["outcome"] == "failure"


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


@pytest.mark.parametrize(
    "cookie",
    [
        "access-token={mine}; access-token=stale",
        "access-token=stale; access-token={mine}",
        "access-token={other}; access-token={mine}",
        "access-token=; access-token={mine}",
        "access-token={mine}; access-token={mine}; access-token.1=left-over",
        "access-token={old}; access-token.0={half}; access-token.1={rest}",
    ],
)
@pytest.mark.parametrize("maker", ["PyJWT", "joserfc"])
async def test_f2_every_session_in_the_cookies_is_ended(relay: Relay, cookie: str, maker: str) -> None:
    """Each session is ended, wherever it stands: its socket closes, and its cookie gets no token again."""
    now = int(time.time())

    def made(**changes: object) -> str:
        claims = {
            "sub": "u1",
            "roles": ["trader"],
            "token_use": "access",
            "iat": now,
            "exp": now + 600,
        } | changes
        if maker == "PyJWT":
            return jwt.encode(claims, SECRET, algorithm="HS256")
        return joserfc_jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))

    mine, other = made(sid=secrets.token_hex(8)), made(sid=secrets.token_hex(8))
    text = cookie.format(
        mine=mine, other=other, half=mine[:100], rest=mine[100:], old=made(sid="old", iat=1, exp=2)
    )
    async with relay.connect(await relay.token(mine)) as socket:
        answer = await post(relay, "/api/auth/logout", [("Origin", relay.url), ("Cookie", text)])
        assert answer.status == 204
        assert (await socket.closed())[0] == 4501
    assert (await relay.ask(mine)).status_code == 401
    assert (await relay.ask(other)).status_code == (401 if "{other}" in cookie else 200)


@pytest.mark.parametrize("ahead_s", [6, 50, 600])
@pytest.mark.parametrize("sid", ["a-session-of-its-own", None])
async def test_f2_a_session_from_the_future_is_ended(relay: Relay, ahead_s: int, sid: str | None) -> None:
    """The backend's clock may be ahead: the session ends all the same, and stays ended when its time comes."""
    now = int(time.time())
    name = f"ahead-{ahead_s}-{sid}"
    session = relay.session(sub=name, sid=sid and name, iat=now + ahead_s, exp=now + ahead_s + 600)
    assert (await relay.ask(session)).status_code == (200 if ahead_s <= 60 else 401)
    assert (await logout(relay, session)).status == 204
    assert (await relay.ask(session)).status_code == 401
    record = await relay.audited("session.revoked")
    with contextlib.closing(sqlite3.connect(relay.folder / "relay-state.db")) as database:
        ats = [at for (at,) in database.execute("SELECT at FROM revocations")]
    assert record
    assert max(ats) >= now + ahead_s


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
