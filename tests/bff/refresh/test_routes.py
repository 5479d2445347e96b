"""The server-side refresh over two relays that share a state file, with a backend that punishes reuse."""

import asyncio
import json
import time
from typing import Any

import jwt
import pytest
from starlette.responses import JSONResponse, Response

from tests.support.cookie_browser import Browser
from tests.support.operators import revoke
from tests.support.raw_http import post
from tests.support.relay_process import SECRET, Relay
from tests.support.rotating_backend import RotatingBackend


async def test_a_refresh_sets_new_cookies(browser: Browser, backend: RotatingBackend) -> None:
    """204, both cookies, no token in the body; the new access token works."""
    before = dict(browser.cookies)
    answer = await browser.refresh()
    assert (answer.status, answer.body) == (204, b"")
    assert answer.all("cache-control") == ["private, no-store"]
    assert browser.cookies["refresh-token"] == backend.logins[browser.user].refresh_token
    assert browser.cookies["refresh-token"] != before["refresh-token"]
    assert (await browser.ask()).status == 200
    assert sources(await recorded(browser, "session.refreshed")) == ["backend"]


async def recorded(browser: Browser, action: str, times: int = 1, relay: Relay | None = None) -> list[Any]:
    """Wait for so many records of the browser's user with this action."""
    async with asyncio.timeout(10):
        while True:
            found = [
                record
                for record in (relay or browser.relay).audit()
                if record["event"]["action"] == action and record.get("user", {}).get("id") == browser.user
            ]
            if len(found) >= times:
                return found
            await asyncio.sleep(0.01)  # the log is a file: there is nothing to await


def sources(records: list[Any]) -> list[str]:
    """Return where the new tokens of refreshes came from."""
    return [record["relay"]["refresh"]["by"] for record in records]


@pytest.mark.parametrize("how", ["issuer", "me"])
async def test_a_call_with_the_refresh_cookie_alone_renews_first(
    browser: Browser, backend: RotatingBackend, how: str
) -> None:
    """One round trip for the page: the answer, and the new cookies with it."""
    answer = await (browser.ask() if how == "issuer" else browser.me())
    assert answer.status == 200
    assert set(browser.cookies) == {"access-token", "refresh-token"}
    assert backend.refreshes.total() == 1
    for token in browser.cookies.values():
        assert token.encode() not in answer.body


@pytest.mark.parametrize("how", ["issuer", "me"])
async def test_a_page_is_told_how_long_its_session_lives(
    browser: Browser, backend: RotatingBackend, how: str
) -> None:
    """It renews the session in time. Without a refresh cookie it can't, so it is told nothing."""
    backend.access_s = 600
    ask = browser.ask if how == "issuer" else browser.me
    renewed = (await ask()).json
    assert (renewed["session_lifetime"], 590 <= renewed["session_expires_in"] <= 600) == (600, True)
    login = backend.logins[browser.user]
    browser.cookies["access-token"] = backend.access(login, iat=int(time.time()) - 300)
    aged = (await ask()).json
    assert (aged["session_lifetime"], 590 <= aged["session_expires_in"] <= 600) == (900, True)
    del browser.cookies["refresh-token"]
    assert not {"session_lifetime", "session_expires_in"} & (await ask()).json.keys()


async def test_an_access_token_that_is_over_is_renewed(browser: Browser, backend: RotatingBackend) -> None:
    """A cookie may outlive its token."""
    login = backend.logins[browser.user]
    browser.cookies["access-token"] = backend.access(login, exp=int(time.time()) - 100)
    assert (await browser.ask()).status == 200
    assert backend.refreshes.total() == 1


async def test_a_401_of_the_backend_renews_once(browser: Browser, backend: RotatingBackend) -> None:
    """An access token that the backend does not take any more, though it is not over; a fresh one is not replaced."""
    login = backend.logins[browser.user]
    old = backend.access(login, iat=int(time.time()) - 100)
    fresh = backend.access(login)
    backend.refused |= {old, fresh}
    browser.cookies["access-token"] = old
    assert (await browser.me()).json["user"] == {"name": browser.user}
    assert backend.refreshes.total() == 1
    browser.cookies["access-token"] = fresh
    answer = await browser.me()
    assert answer.status == 401
    assert answer.all("set-cookie") == []
    assert backend.refreshes.total() == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, b"", (503, True)),
        (500, b"<html>", (503, True)),
        (429, b"", (503, True)),
        (408, b"", (503, True)),
        (403, b"{}", (502, True)),
        (404, b"<html>", (502, True)),
        (400, b'{"error":"invalid_request"}', (502, True)),
        (302, b"", (502, True)),
        (200, b"<html>", (502, True)),
        (200, b"{}", (502, True)),
        (200, b'{"accessToken":"not one of ours"}', (502, True)),
        (200, b'{"accessToken":"a.b.c"}', (502, True)),
        (200, b'{"accessToken":"' + b"a" * 20_000 + b'"}', (502, True)),
        (200, b"[" * 60_000, (502, True)),
        (401, b"", (401, False)),
        (400, b'{"error":"invalid_grant"}', (401, False)),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_row_3_only_a_refusal_for_good_logs_out(
    browser: Browser,
    backend: RotatingBackend,
    port: int,
    status: int,
    body: bytes,
    expected: tuple[int, bool],
) -> None:
    """Everything else keeps the cookies and says whether to try again; nothing of the backend reaches the body."""
    backend.answer = lambda: Response(body, status_code=status)
    answer = await browser.refresh()
    assert (answer.status, browser.is_logged_in) == expected
    assert answer.json["retryable"] is (answer.status == 503)
    if answer.status == 503:
        assert answer.all("retry-after")
    assert str(port).encode() not in answer.body
    backend.answer = None
    if browser.is_logged_in and status != 200:
        assert (await browser.refresh()).status == 204
    elif not browser.is_logged_in:
        [denied] = await recorded(browser, "session.refresh_denied")
        assert denied["event"]["reason"] == "refresh_refused"


async def test_row_2_a_late_caller_gets_the_successors_cookies(
    browser: Browser, backend: RotatingBackend
) -> None:
    """The browser never saw the new cookies: it comes back with the old one and gets them."""
    laptop = browser.copy()
    await browser.refresh()
    answer = await laptop.refresh()
    assert answer.status == 204
    assert laptop.cookies == browser.cookies
    assert backend.refreshes.total() == 1
    assert sources(await recorded(browser, "session.refreshed", 2)) == ["backend", "successor"]


async def test_a_lost_answer_is_made_good_after_the_new_token_is_over(
    browser: Browser, backend: RotatingBackend
) -> None:
    """An hour later the new access token is over, too: the new refresh token is redeemed for the browser."""
    laptop = browser.copy()
    backend.access_s = 3  # what is left of it counts as over
    await browser.refresh()
    backend.access_s = 900
    answer = await laptop.refresh()
    assert answer.status == 204
    assert backend.refreshes.total() == 2
    assert laptop.cookies["refresh-token"] == backend.logins[browser.user].refresh_token
    assert (await laptop.ask()).status == 200


async def test_a_copied_cookie_dies_with_the_log_out(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """Predecessors and successors, at both relays, and before the backend is asked."""
    copies = [browser.copy(relays[1])]
    await browser.refresh()
    copies.append(browser.copy(relays[1]))
    assert (await browser.send("POST", "/api/auth/logout")).status == 204
    asked = backend.refreshes.total()
    for copy in copies:
        for call in (Browser.refresh, Browser.ask, Browser.me):
            stolen = copy.copy()
            stolen.lose_access()
            assert (await call(stolen)).status == 401
            assert not stolen.is_logged_in
    assert backend.refreshes.total() == asked
    denied = await recorded(browser, "session.refresh_denied", 6, relays[1])
    assert {record["event"]["reason"] for record in denied} == {"session_revoked"}


async def test_a_session_whose_access_token_is_over_can_log_out(
    browser: Browser, backend: RotatingBackend
) -> None:
    """Its sockets close, the backend is told, and the record names the user."""
    browser.cookies["access-token"] = backend.access(backend.logins[browser.user])
    token = (await browser.ask()).json["wsToken"]
    async with browser.relay.connect(token) as socket:
        browser.lose_access()
        assert (await browser.send("POST", "/api/auth/logout")).status == 204
        assert await socket.closed() == (4501, "session_revoked")
    assert backend.logouts == [backend.logins[browser.user].refresh_token]
    assert len(await recorded(browser, "logout")) == 1


async def test_a_log_out_with_both_cookies_is_recorded_once(browser: Browser) -> None:
    """The session of the access cookie is one of the log-in's, and ends with it."""
    await browser.refresh()
    stolen = browser.copy()
    assert {"access-token", "refresh-token"} <= stolen.cookies.keys()
    assert (await browser.send("POST", "/api/auth/logout")).status == 204
    stolen.lose_access()
    assert (await stolen.refresh()).status == 401
    await recorded(browser, "session.refresh_denied")  # then the records before it are written
    for action in ("logout", "session.revoked"):
        assert len(await recorded(browser, action)) == 1


async def test_an_unknown_refresh_cookie_ends_nothing_at_a_log_out(
    browser: Browser, backend: RotatingBackend
) -> None:
    """Anybody can make up a token, also one that looks like a JWT with somebody's session in it."""
    login = backend.logins[browser.user]
    forged = jwt.encode({"sub": browser.user, "sid": login.sid, "exp": int(time.time()) + 900}, "x" * 32)
    stranger = Browser(browser.relay, **{"refresh-token": forged})
    answer = await stranger.send("POST", "/api/auth/logout")
    assert (answer.status, answer.code) == (200, "session_unknown")
    assert not stranger.is_logged_in
    assert (await browser.refresh()).status == 204
    record = await browser.relay.audited("logout", reason="session_missing")
    assert "user" not in record or not record["user"].get("id")


@pytest.mark.parametrize("path", ["/api/auth/me", "/api/proxy/users"])
async def test_row_7_no_page_no_navigation_and_no_prefetch_renews(
    browser: Browser, backend: RotatingBackend, path: str
) -> None:
    """Their answers may be thrown away, and the new cookies with them: 401 that can be tried again, cookies kept."""
    plain = [field for field in browser.fields if field[0] != "Origin"]
    for fields in (
        [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Site", "same-origin")],
        [("Sec-Purpose", "prefetch"), ("Sec-Fetch-Site", "same-origin")],
        [("Sec-Purpose", "prefetch;prerender"), ("Sec-Fetch-Site", "same-origin")],
        [("Purpose", "prefetch"), ("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "none")],
        [("Origin", "https://evil.example")],
        [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "same-origin")],
    ):
        answer = await browser.send("GET", path, fields=[*plain, *fields])
        assert answer.status == 401
        assert answer.code == "session_renew"
        assert answer.json["retryable"] is True
        assert answer.all("set-cookie") == []
    assert backend.refreshes.total() == 0
    for proof in (("Sec-Fetch-Site", "same-origin"), ("X-Relay-CSRF", "1"), ("Origin", browser.relay.url)):
        browser.lose_access()
        [_, cookie] = browser.fields
        assert (await browser.send("GET", path, fields=[cookie, proof])).status == 200
    assert backend.refreshes.total() == 3


async def test_row_5_a_server_side_renderer_redeems_nothing(
    browser: Browser, backend: RotatingBackend
) -> None:
    """It can't store the new cookies. Without the headers of a browser it gets 401 that says what the page must do."""
    cookies = [field for field in browser.fields if field[0] == "Cookie"]
    for path in ("/api/auth/me", "/api/proxy/users"):
        answer = await browser.send("GET", path, fields=[*cookies, ("User-Agent", "node")])
        assert (answer.status, answer.code, answer.all("set-cookie")) == (401, "session_renew", [])
    assert backend.refreshes.total() == 0


async def test_row_6_a_page_after_a_refresh_sees_the_new_cookie(
    browser: Browser, backend: RotatingBackend, relays: tuple[Relay, Relay]
) -> None:
    """One refresh, however many calls the page then makes, at whichever process."""
    await browser.refresh()
    cookies = dict(browser.cookies)
    for relay in relays:
        page = browser.copy(relay)
        for call in (Browser.me, Browser.ask, Browser.proxy):
            answer = await call(page)
            assert (answer.status, answer.all("set-cookie")) == (200, [])
        assert page.cookies == cookies
    assert backend.refreshes.total() == 1


async def test_row_4_no_answer_with_cookies_is_kept_by_a_cache(
    browser: Browser, backend: RotatingBackend
) -> None:
    """Nor any answer of a session: of each route, with and without new cookies, refused or not."""
    answers = []
    for call in (Browser.refresh, Browser.me, Browser.ask, Browser.proxy):
        browser.lose_access()
        answers += [await call(browser), await call(browser)]
    assert [bool(answer.all("set-cookie")) for answer in answers] == [True, True] + [True, False] * 3
    answers.append(await browser.send("GET", "/api/proxy/other"))
    answers.append(await browser.send("POST", "/api/auth/login", {"email": browser.user, "password": "p"}))
    answers.append(await browser.send("POST", "/api/auth/login", {}))
    stolen = browser.copy()
    answers.append(await browser.send("POST", "/api/auth/logout"))
    answers += [await call(stolen) for call in (Browser.ask, Browser.refresh, Browser.me)]
    assert [answer.all("cache-control") for answer in answers] == [["private, no-store"]] * len(answers)


async def test_without_a_cookie_there_is_nothing_to_renew(relays: tuple[Relay, Relay]) -> None:
    """401 from each route, and another site gets nothing at all."""
    stranger = Browser(relays[0])
    assert [(await call(stranger)).status for call in (Browser.refresh, Browser.ask, Browser.me)] == [401] * 3
    evil = [("Origin", "https://evil.example"), ("Cookie", "refresh-token=x")]
    assert (await post(relays[0], "/api/auth/refresh", evil)).status == 403


async def test_an_operators_revocation_ends_the_refresh_cookie(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """A user's and a session's; a refresh is no new log-in, so a newer access token does not lift it."""
    await browser.refresh()
    stolen = browser.copy(relays[1])
    asked = backend.refreshes.total()
    await revoke(relays[0], sub=browser.user)
    stolen.lose_access()
    assert (await stolen.refresh()).status == 401
    assert not stolen.is_logged_in
    assert backend.refreshes.total() == asked


async def test_a_backend_that_does_not_rotate(browser: Browser, backend: RotatingBackend) -> None:
    """The refresh cookie stays, and calls that come together get one access token."""
    backend.rotates = False
    before = browser.cookies["refresh-token"]
    others = [browser.copy() for _ in range(5)]
    answers = await asyncio.gather(*(one.refresh() for one in [browser, *others]))
    assert {answer.status for answer in answers} == {204}
    assert backend.refreshes.total() == 1
    assert {one.cookies["refresh-token"] for one in others} == {before}
    assert jwt.decode(browser.cookies["access-token"], SECRET, algorithms=["HS256"])["sub"] == browser.user


async def test_the_proxy_renews_first_and_after_a_401(
    browser: Browser, backend: RotatingBackend, relays: tuple[Relay, Relay]
) -> None:
    """A call goes on with a new access token if it came with the refresh cookie alone, or was refused."""
    answer = await browser.send("GET", "/api/proxy/users")
    assert (answer.status, answer.json) == (200, {"name": browser.user})
    assert set(browser.cookies) == {"access-token", "refresh-token"}
    await browser.login(browser.user)
    old = backend.access(backend.logins[browser.user], iat=int(time.time()) - 100)
    backend.refused.add(old)
    browser.cookies["access-token"] = old
    assert (await browser.send("GET", "/api/proxy/users")).status == 200
    assert backend.refreshes.total() == 2
    stolen = browser.copy(relays[1])
    assert (await browser.send("POST", "/api/auth/logout")).status == 204
    stolen.lose_access()
    answer = await stolen.send("GET", "/api/proxy/users")
    assert answer.status == 401
    assert not stolen.is_logged_in


async def test_the_backends_log_in_routes_are_closed_to_the_proxy(browser: Browser) -> None:
    """Its own refresh and log-out are called by the relay alone."""
    for path in ("auth/refresh", "auth/logout", "Auth/Refresh"):
        assert (await browser.send("GET", f"/api/proxy/{path}")).status in (403, 404)


async def test_a_401_to_a_body_renews_and_lets_the_page_repeat_it(
    browser: Browser, backend: RotatingBackend
) -> None:
    """It went to the backend as it came and can't be sent again from here: 401 with the new cookies and `retryable`."""
    for body in ({"amount": 1}, "x" * 200_000, None):
        await browser.login(browser.user)
        old = backend.access(backend.logins[browser.user], iat=int(time.time()) - 100)
        backend.refused.add(old)
        browser.cookies["access-token"] = old
        answer = await browser.send("POST", "/api/proxy/users", body)
        assert len(answer.all("set-cookie")) == 2
        if body is None:  # there is nothing that could not be sent again
            assert answer.status == 200
            break
        assert (answer.status, answer.code, answer.json["retryable"]) == (401, "session_renewed", True)
        assert (await browser.send("POST", "/api/proxy/users", body)).status == 200
        assert json.loads(backend.bodies[-1]) == body
    assert backend.refreshes.total() == 3
    # a backend says 401 to a wrong current password, too: the new token is not replaced, and the cookies stay
    backend.refused.add(browser.cookies["access-token"])
    answer = await browser.send("POST", "/api/proxy/users", {"password": "wrong"})
    assert (answer.status, answer.body, answer.all("set-cookie")) == (401, b"", [])
    assert backend.refreshes.total() == 3


async def test_a_wrong_password_renews_once_whatever_the_backends_clock_says(
    browser: Browser, backend: RotatingBackend, relays: tuple[Relay, Relay]
) -> None:
    """A new token whose `iat` is old, or that has none, is new all the same: a page that repeats the call must end."""
    backend.ahead_s = -50
    backend.refuses_all = True
    await browser.refresh()
    for n in range(4):
        answer = await browser.copy(relays[n % 2]).send("POST", "/api/proxy/users", {"password": "wrong"})
        assert (answer.status, answer.body, answer.all("set-cookie")) == (401, b"", [])
        assert (await browser.copy(relays[n % 2]).proxy()).all("set-cookie") == []
        assert (await browser.copy(relays[n % 2]).me()).all("set-cookie") == []
    assert backend.refreshes.total() == 1


@pytest.mark.parametrize("path", ["/api/auth/me", "/api/proxy/users"])
async def test_a_401_of_a_log_in_that_is_over_clears_the_cookies(
    browser: Browser, backend: RotatingBackend, path: str
) -> None:
    """The backend refuses the access token and then the refresh token: nothing is left to try."""
    old = backend.access(backend.logins[browser.user], iat=int(time.time()) - 100)
    backend.refused.add(old)
    backend.logins[browser.user].alive = False
    browser.cookies["access-token"] = old
    answer = await browser.send("GET", path)
    assert (answer.status, answer.code) == (401, "invalid_session")
    assert browser.cookies == {}


async def test_an_answer_of_no_use_is_not_asked_for_twice(
    browser: Browser, backend: RotatingBackend, relays: tuple[Relay, Relay]
) -> None:
    """The backend said 2xx, so the token is redeemed: 502 and cookies kept, at each process, and one call."""
    for body in (b"<html>", b"{}", b"[1]", b'{"accessToken":1}', b"x" * 30_000_000):
        await browser.login(browser.user)
        backend.answer = lambda body=body: Response(body)
        asked = backend.refreshes.total()
        for one in (browser, browser.copy(relays[1]), browser):
            one.lose_access()
            for call in (Browser.refresh, Browser.ask, Browser.me, Browser.proxy):
                answer = await call(one)
                assert (answer.status, answer.json["retryable"], one.is_logged_in) == (502, False, True)
        assert backend.refreshes.total() == asked + 1


@pytest.mark.parametrize("error", [[], {}, 1, None, ["invalid_grant"], "other"], ids=str)
async def test_an_odd_error_keeps_the_cookies(browser: Browser, backend: RotatingBackend, error: Any) -> None:
    """A 400 whose `error` is anything else says nothing about the token."""
    backend.answer = lambda: JSONResponse({"error": error}, status_code=400)
    assert (await browser.refresh()).status == 502
    assert browser.is_logged_in


async def test_a_backend_that_was_not_told_of_a_log_out_is_recorded(
    browser: Browser, backend: RotatingBackend
) -> None:
    """The log-out goes on all the same."""
    backend.logout_status = 500
    assert (await browser.send("POST", "/api/auth/logout")).status == 204
    [record] = await recorded(browser, "logout")
    assert record["relay"]["detail"] == "The backend's log-out answered 500."
