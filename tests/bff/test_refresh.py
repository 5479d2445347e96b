"""The server-side refresh over two relays that share a state file, with a backend that punishes reuse."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest
from starlette.responses import JSONResponse, Response

from tests.support.operators import OPERATORS, revoke
from tests.support.ports import free_ports
from tests.support.raw_http import Answer, exchange, head, post
from tests.support.relay_process import SECRET, Relay, make_relay
from tests.support.rotating_backend import RotatingBackend, rotating_backend

_numbers = itertools.count()


class Browser:
    """The cookies of one browser, and what it sends. `relays` answer in turn."""

    def __init__(self, relay: Relay, user: str = "", **cookies: str) -> None:
        self.relay = relay
        self.user = user
        self.cookies = cookies

    def copy(self, relay: Relay | None = None) -> "Browser":
        """Return a browser with the same cookies, at this or another relay."""
        return Browser(relay or self.relay, self.user, **self.cookies)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The headers that a script of the application sends."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return [("Origin", self.relay.url)] + ([("Cookie", cookie)] if cookie else [])

    async def send(self, method: str, path: str, body: Any = None, *, fields: Any = None) -> Answer:
        """Send a request, and keep the cookies of its answer."""
        content = b"" if body is None else json.dumps(body).encode()
        first = [("Host", "127.0.0.1"), ("Content-Length", str(len(content)))]
        if body is not None:
            first.append(("Content-Type", "application/json"))
        answer = await exchange(
            self.relay.ports[0], head(method, path, [*first, *(fields or self.fields)]) + content
        )
        for text in answer.all("set-cookie"):
            name, _, value = text.partition(";")[0].partition("=")
            if "Max-Age=0" in text:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer

    async def login(self, user: str) -> None:
        self.user = user
        assert (await self.send("POST", "/api/auth/login", {"email": user, "password": "p"})).status == 200

    async def refresh(self) -> Answer:
        return await self.send("POST", "/api/auth/refresh")

    async def me(self) -> Answer:
        return await self.send("GET", "/api/auth/me")

    async def ask(self) -> Answer:
        return await self.send("POST", "/auth/ws-token")

    def lose_access(self) -> None:
        """The access cookie ends with its token."""
        self.cookies.pop("access-token", None)

    @property
    def is_logged_in(self) -> bool:
        return "refresh-token" in self.cookies


@pytest.fixture(scope="module")
def port() -> int:
    """The backend's port, which the relays know from their settings."""
    [one] = free_ports(1)
    return one


@pytest.fixture
async def backend(port: int) -> AsyncIterator[RotatingBackend]:
    """A backend that rotates."""
    async with rotating_backend(port) as running:
        yield running


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[tuple[Relay, Relay]]:
    """Two relays with one state file."""
    folder = tmp_path_factory.mktemp("refreshing")
    bff = f'backend = "http://127.0.0.1:{port}"\nlogout_path = "/auth/logout"\n[bff.proxy.routes."/users"]'
    one, other = (make_relay(folder / name, bff=bff, extra=OPERATORS) for name in ("one", "other"))
    for relay in (one, other):
        relay.environment["RELAY_ENGINE__STATE_PATH"] = str(folder / "state.db")
        relay.start()
    yield one, other
    one.stop()
    other.stop()


@pytest.fixture
async def browser(relays: tuple[Relay, Relay], backend: RotatingBackend) -> Browser:
    """A browser of a user of its own, logged in at the first relay, whose access token is over."""
    logged_in = Browser(relays[0])
    await logged_in.login(f"user-{next(_numbers)}")
    assert set(backend.logins) == {logged_in.user}
    logged_in.lose_access()
    return logged_in


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
    assert (await browser.me()).json == {"user": {"name": browser.user}}
    assert backend.refreshes.total() == 1
    browser.cookies["access-token"] = fresh
    answer = await browser.me()
    assert answer.status == 401
    assert answer.all("set-cookie") == []
    assert backend.refreshes.total() == 1


async def test_a_hundred_calls_at_once_cause_one_refresh(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """Over both processes, refresh route, issuer and /api/auth/me mixed: a hundred answers, nobody logged out."""
    backend.hold()
    browsers = [browser.copy(relays[n % 2]) for n in range(100)]
    calls = [Browser.refresh, Browser.ask, Browser.me]
    tasks = [asyncio.create_task(calls[n % 3](one)) for n, one in enumerate(browsers)]
    await backend.called(1)
    backend.release()
    answers = await asyncio.gather(*tasks)
    assert {answer.status for answer in answers} <= {200, 204}
    assert backend.refreshes.total() == 1
    assert {one.cookies["refresh-token"] for one in browsers} == {backend.logins[browser.user].refresh_token}
    assert backend.logins[browser.user].alive


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
async def test_only_a_refusal_for_good_logs_out(
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
        denied = await browser.relay.audited("session.refresh_denied")
        assert denied["event"]["reason"] == "refresh_refused"


async def test_a_cut_connection_keeps_the_cookies(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """A backend that cannot be reached is 503; the next caller tries again."""
    backend.answer = lambda: JSONResponse({}, status_code=503)
    assert (await browser.refresh()).status == 503
    backend.answer = None
    assert (await browser.copy(relays[1]).refresh()).status == 204


async def test_a_log_out_in_the_middle_wins(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """The result of a refresh that runs is thrown away, and the backend is told that its tokens are not needed."""
    backend.hold()
    other = browser.copy(relays[1])
    running = asyncio.create_task(other.refresh())
    await backend.called(1)
    assert (await browser.send("POST", "/api/auth/logout")).status == 204
    assert not browser.is_logged_in
    backend.release()
    answer = await running
    assert answer.status == 401
    assert not other.is_logged_in
    assert backend.logins[browser.user].refresh_token in backend.logouts


async def test_a_lost_answer_logs_nobody_out(browser: Browser, backend: RotatingBackend) -> None:
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


async def test_no_navigation_and_no_prefetch_renews(browser: Browser, backend: RotatingBackend) -> None:
    """Their answers may be thrown away, and the new cookies with them: 401 that can be tried again, cookies kept."""
    plain = [field for field in browser.fields if field[0] != "Origin"]
    for fields in (
        [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Site", "same-origin")],
        [("Sec-Purpose", "prefetch"), ("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Origin", "https://evil.example")],
        [],
    ):
        answer = await browser.send("GET", "/api/auth/me", fields=[*plain, *fields])
        assert answer.status == 401
        assert answer.code == "session_renew"
        assert answer.json["retryable"] is True
        assert answer.all("set-cookie") == []
    assert backend.refreshes.total() == 0
    answer = await browser.send("GET", "/api/auth/me", fields=[*plain, ("Sec-Fetch-Site", "same-origin")])
    assert answer.status == 200


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
    login = backend.logins[browser.user]
    old = backend.access(login, iat=int(time.time()) - 100)
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
