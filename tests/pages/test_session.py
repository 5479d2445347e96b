"""The session of a page: its user, asked once, with a real backend; and that a page ends and renews nothing."""

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from relay.pages import ConfigurationError, PageAnswer, PageBoundary, SessionEnded, backend, verify_session
from relay.pages.options import RENEWED
from tests.support.backends import Backend, running_backend
from tests.support.http_client import http_client
from tests.support.page_visitor import ADDRESS, COOKIES, application, destination, visit
from tests.support.ports import free_ports
from tests.support.relay_process import Relay, running
from tests.support.rotating_backend import RotatingBackend, rotating_backend

BOTH = {"access-token": "a", "refresh-token": "r"}


@pytest.fixture
async def server() -> AsyncIterator[Backend]:
    """A backend that takes any token, and says whose it is."""
    async with running_backend() as running:
        running.answer = lambda authorization: JSONResponse({"user": {"name": authorization[7:]}})
        yield running


def origin_of(server: Backend) -> str:
    """Return the backend's origin."""
    return server.url.removesuffix("/auth/me")


def recent(seconds: float = 0) -> str:
    """Return the mark of a page that is opened after a renewal."""
    return f"{RENEWED}={int(time.time() - seconds)}"


async def test_a_page_gets_the_user_and_the_users_data(server: Backend) -> None:
    """One call of /auth/me and one for the data, with the token of the request's cookie and the client's address."""
    headers = {"User-Agent": "caf\xe9", "X-Forwarded-For": "203.0.113.9"}
    answer = await visit(
        application(origin_of(server)), "/dashboard?a=1", {"access-token": "alice"}, headers=headers
    )
    assert answer.json()["user"] == {"name": "alice"}
    assert answer.json()["orders"] == {"user": {"name": "alice"}}
    assert answer.headers["cache-control"] == "private, no-store"
    assert server.calls == ["Bearer alice"] * 2
    for sent in server.headers:
        assert sent["x-forwarded-for"] == ADDRESS
        assert sent["cache-control"] == "no-store"
        assert sent["user-agent"] == "caf\xe9"
        assert "cookie" not in sent


async def test_the_address_of_a_trusted_proxys_client(server: Backend) -> None:
    """X-Forwarded-For is believed from a proxy that is named, and from nobody else."""
    app = application(origin_of(server), trusted_proxies=[f"{ADDRESS}/32"])
    await visit(app, "/dashboard", BOTH, headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"})
    assert {sent["x-forwarded-for"] for sent in server.headers} == {"203.0.113.9"}


async def test_the_session_is_asked_once_per_request(server: Backend) -> None:
    """However often, also at the same time, and by the parts below a mount; the next request asks again."""

    async def many(request: Request) -> Response:
        users = await asyncio.gather(*(verify_session(request) for _ in range(20)))
        assert await verify_session(request) is users[0]
        return JSONResponse(users)

    app = Starlette(routes=[Route("/many", many)])
    boundary = PageBoundary(app, protected=[], backend=origin_of(server), **COOKIES)
    for times in (1, 2):
        assert (await visit(boundary, "/many", BOTH)).json() == [{"name": "a"}] * 20
        assert len(server.calls) == times


@pytest.mark.parametrize("name", ["__Host-access-token", "access-token"])
async def test_a_token_of_any_length_is_read(server: Backend, name: str) -> None:
    """A cookie in chunks is joined, under the name that the settings say."""
    app = application(origin_of(server), access_cookie=name)
    token = "t" * 9000
    pieces = {
        f"{name}.{number}": token[start : start + 3936] for number, start in enumerate(range(0, 9000, 3936))
    }
    assert (await visit(app, "/dashboard", pieces)).json()["user"] == {"name": token}


@pytest.mark.parametrize(
    ("cookies", "path", "location"),
    [
        ({"refresh-token": "r"}, "/dashboard?a=1", "/session?returnTo=%2Fdashboard%3Fa%3D1"),
        ({"refresh-token": "r"}, "/dashboard?MARK", "/login?ended=1&returnTo=%2Fdashboard"),
        ({"access-token": "a\x7f\xe9"}, "/open", "/login?ended=1&returnTo=%2Fopen"),
        ({}, "/open", "/login?returnTo=%2Fopen"),
    ],
)
async def test_without_an_access_token_nobody_is_asked(
    server: Backend, cookies: dict[str, str], path: str, location: str
) -> None:
    """The refresh cookie alone leads to the renewal, and nothing to the log-in."""
    server.answers(status=401)
    answer = await visit(application(origin_of(server)), path.replace("MARK", recent()), cookies)
    assert answer.headers["location"] == location
    assert server.calls == []


async def test_a_planted_second_cookie_is_no_session(server: Backend) -> None:
    """Two access tokens are never one user's: the log-in, and no guess at the right one."""
    headers = {"Cookie": "access-token=alice; access-token=mallory"}
    answer = await visit(application(origin_of(server)), "/dashboard", headers=headers)
    assert destination(answer) == ("/login", {"ended": ["1"], "returnTo": ["/dashboard"]})
    assert server.calls == []


@pytest.mark.parametrize("status", [204, 302, 401, 403, 404, 410])
async def test_a_refused_token_is_renewed_once(server: Backend, status: int) -> None:
    """With a refresh cookie to the renewal; right after one, or without one, to the log-in."""
    server.answers(status=status)
    app = application(origin_of(server))
    assert destination(await visit(app, "/dashboard", BOTH))[0] == "/session"
    assert destination(await visit(app, f"/dashboard?a=1&{recent(5)}", BOTH)) == (
        "/login",
        {"ended": ["1"], "returnTo": ["/dashboard?a=1"]},
    )
    assert destination(await visit(app, f"/dashboard?{recent(31)}", BOTH))[0] == "/session"
    assert destination(await visit(app, f"/dashboard?{recent(-3600)}", BOTH))[0] == "/session"
    assert destination(await visit(app, "/dashboard", {"access-token": "a"}))[0] == "/login"


async def test_a_second_arrival_at_the_renewal_goes_to_the_login() -> None:
    """The mark in the URL of the renewal itself counts, too."""
    answer = await visit(application(None), f"/session?returnTo=%2Fdashboard&{recent()}", BOTH)
    assert destination(answer) == ("/login", {"ended": ["1"], "returnTo": ["/dashboard"]})


async def test_the_application_never_sees_the_mark(server: Backend) -> None:
    """A page that makes links from its own query does not pass it on."""
    answer = await visit(application(origin_of(server)), f"/dashboard?a=1&{recent()}&b=2", BOTH)
    assert answer.json()["query"] == "a=1&b=2"


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (503, b"", 503),
        (500, b"secret of the backend", 503),
        (429, b"", 503),
        (200, b"<html>secret", 502),
        (200, b"[]", 502),
        (400, b"{}", 502),
    ],
)
async def test_a_backend_that_cannot_say_is_told_on_a_page(
    server: Backend, status: int, body: bytes, shown: int
) -> None:
    """No redirect at all: a page that says what is wrong, with links to try again; nobody is logged out."""
    server.answers(body, status=status, headers={"Retry-After": "7"})
    answer = await visit(application(origin_of(server)), "/dashboard?a=1", BOTH)
    assert answer.status_code == shown
    assert answer.headers.get("retry-after") == ("7" if shown == 503 else None)
    assert "still logged in" in answer.text
    assert 'href="/dashboard?a=1"' in answer.text
    assert "secret" not in answer.text
    assert "127.0.0.1" not in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_backend_that_is_away(server: Backend) -> None:
    """The same page, and 503 in JSON for a script."""
    [port] = free_ports(1)
    app = application(f"http://127.0.0.1:{port}")
    answer = await visit(app, "/dashboard", BOTH)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    answer = await visit(app, "/dashboard", BOTH, headers={"Sec-Fetch-Dest": "empty"})
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)


# --- calls to the backend -------------------------------------------------------------------------


async def calling(server: Backend, call: Any, cookies: dict[str, str] | None = None) -> httpx.Response:
    """Open a page that is one call to the backend."""

    async def one(request: Request) -> Response:
        return PlainTextResponse(str(await call(request)))

    app = Starlette(routes=[Route("/one", one)])
    boundary = PageBoundary(app, protected=["/one"], backend=origin_of(server), **COOKIES)
    return await visit(boundary, "/one", BOTH if cookies is None else cookies)


async def test_every_status_but_401_is_returned(server: Backend) -> None:
    """A refusal of the backend is the page's own affair; a redirect is not followed, and no cookie is kept."""
    for status in (200, 204, 302, 400, 403, 404, 409, 429, 500, 503):
        server.answers(status=status, headers={"Location": "http://127.0.0.1:9/", "Set-Cookie": "a=b"})

        async def call(request: Request) -> int:
            client = backend(request)
            await client.get("/elsewhere")
            return (await client.get("/elsewhere")).status_code

        assert (await calling(server, call)).text == str(status)
    assert not any("cookie" in sent for sent in server.headers)


async def test_a_401_ends_the_page(server: Backend) -> None:
    """The exception that nobody catches becomes the way to a session; a page that catches it goes on."""
    server.answers(status=401)

    async def call(request: Request) -> int:
        return (await backend(request).get("/elsewhere")).status_code

    assert destination(await calling(server, call)) == ("/session", {"returnTo": ["/one"]})
    answer = await calling(server, call, {"refresh-token": "r"})
    assert destination(answer)[0] == "/session"

    async def careful(request: Request) -> str:
        with pytest.raises(SessionEnded):
            await backend(request).get("/elsewhere")
        return "the password is wrong"

    assert (await calling(server, careful)).text == "the password is wrong"


async def test_another_origin_never_gets_the_token(server: Backend) -> None:
    """A URL from outside in a call: refused before a connection is made, with a sentence that says how."""
    for url in ("http://127.0.0.1:9/x", "https://evil.example/", "http://localhost:9000/elsewhere"):

        async def call(request: Request, url: str = url) -> None:
            await backend(request).get(url)

        with pytest.raises(ConfigurationError, match="client of your own"):
            await calling(server, call)

    async def no_scheme(request: Request) -> int:
        return (await backend(request).get("//evil.example/elsewhere")).status_code

    assert (await calling(server, no_scheme)).text == "200"
    assert server.calls == ["Bearer a"]


async def test_row_28_users_who_render_at_once_see_their_own_data(server: Backend) -> None:
    """Twenty users' pages at one time, all calls in the backend before it answers one: nobody sees another's data."""
    app = application(origin_of(server))
    users = [f"user-{number % 2}-{number}" for number in range(20)]
    server.hold()
    tasks = [asyncio.create_task(visit(app, "/dashboard", {"access-token": user})) for user in users]
    await server.called(20)
    server.release()
    for user, answer in zip(users, await asyncio.gather(*tasks), strict=True):
        assert answer.json()["user"] == {"name": user}
        assert answer.json()["orders"] == {"user": {"name": user}}
    assert sorted(server.calls) == sorted(f"Bearer {user}" for user in users for _ in range(2))
    for sent in server.headers:
        assert sent["cache-control"] == "no-store"
    # the same connections, another user: nothing of the one before is left
    again = await visit(app, "/dashboard", {"access-token": "somebody-else"})
    assert again.json()["orders"] == {"user": {"name": "somebody-else"}}


# --- with a relay ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port() -> int:
    """The port of the backend that rotates, which the relay knows from its settings."""
    [one] = free_ports(1)
    return one


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Relay]:
    """A relay that renews sessions at this backend."""
    with running(tmp_path_factory.mktemp("pages"), bff=f'backend = "http://127.0.0.1:{port}"') as started:
        yield started


@pytest.fixture
async def rotating(port: int) -> AsyncIterator[RotatingBackend]:
    """A backend that punishes the second use of a refresh token."""
    async with rotating_backend(port) as started:
        yield started


class PageTab:
    """A browser tab that opens pages, and runs the script of the renewal as it is written."""

    def __init__(self, relay: Relay, port: int) -> None:
        routes = [Route("/dashboard", self._page)]
        self.app = PageBoundary(
            Starlette(routes=routes), protected=["/dashboard"], backend=f"http://127.0.0.1:{port}", **COOKIES
        )
        self.relay = relay
        self.cookies: dict[str, str] = {}
        self.redirects = 0

    @staticmethod
    async def _page(request: Request) -> Response:
        user = await verify_session(request)
        return user if isinstance(user, PageAnswer) else JSONResponse(user)

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        """Call the relay as a script of the application, and keep its cookies."""
        async with http_client() as client:
            cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            headers = {"Origin": self.relay.url} | ({"Cookie": cookie} if cookie else {})
            answer = await client.post(self.relay.url + path, json=body, headers=headers)
        for text in answer.headers.get_list("set-cookie"):
            name, _, value = text.partition(";")[0].partition("=")
            if "Max-Age=0" in text:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer

    async def login(self, user: str) -> None:
        """Log in."""
        assert (await self.post("/api/auth/login", {"email": user, "password": "p"})).status_code == 200

    async def open(self, path: str) -> httpx.Response:
        """Open a page and go where it leads, until a page stays."""
        self.redirects = 0
        while True:
            answer = await visit(self.app, path, self.cookies)
            assert "set-cookie" not in answer.headers
            if answer.status_code in (303, 307):
                path = answer.headers["location"]
            elif (
                found := re.search(r'data-following="([^"]*)" data-login="([^"]*)"', answer.text)
            ) is not None:
                renewed = (await self.post("/api/auth/refresh")).status_code
                if renewed not in (204, 401):
                    return answer
                path = html.unescape(found[1 if renewed == 204 else 2])
            else:
                return answer
            self.redirects += 1
            assert self.redirects <= 3, path
            if path.startswith("/login?"):
                return await visit(self.app, path, self.cookies)  # not redirected again


@pytest.fixture
async def tab(relay: Relay, port: int, rotating: RotatingBackend) -> PageTab:
    """A tab of a user who is logged in."""
    logged_in = PageTab(relay, port)
    await logged_in.login(f"user-{time.monotonic_ns()}")
    assert rotating.refreshes.total() == 0
    return logged_in


def user_of(rotating: RotatingBackend) -> str:
    """Return the one user who is logged in at the backend."""
    [user] = rotating.logins
    return user


async def test_row_5_a_page_never_redeems_a_refresh_token(tab: PageTab, rotating: RotatingBackend) -> None:
    """Without an access token, with one that is over or refused: no page calls the refresh route or sets a cookie."""
    login = rotating.logins[user_of(rotating)]
    over, refused = rotating.access(login, exp=int(time.time()) - 100), rotating.access(login)
    rotating.refused.add(refused)
    for cookies in ({}, {"access-token": over}, {"access-token": refused}):
        answer = await visit(tab.app, "/dashboard", {"refresh-token": login.refresh_token, **cookies})
        assert destination(answer) == ("/session", {"returnTo": ["/dashboard"]})
        assert "set-cookie" not in answer.headers
    assert rotating.refreshes.total() == 0


async def test_row_6_a_page_after_a_refresh_sees_the_new_token(
    tab: PageTab, rotating: RotatingBackend
) -> None:
    """The refresh cookie alone: one refresh, the page that was wanted, and the next page without another refresh."""
    del tab.cookies["access-token"]
    answer = await tab.open("/dashboard")
    assert answer.json() == {"name": user_of(rotating), "echo": tab.cookies["access-token"]}
    assert tab.redirects == 2
    assert (await tab.open("/dashboard")).status_code == 200
    assert tab.redirects == 0
    assert rotating.refreshes.total() == 1


@pytest.mark.parametrize("header", ["Sec-Purpose", "Purpose", "X-Nothing"])
async def test_row_7_no_page_ends_or_renews_anything(
    tab: PageTab, rotating: RotatingBackend, header: str
) -> None:
    """Navigations and prefetches of pages, the renewal and the log-in, also after an end: nothing changes."""
    before = dict(tab.cookies)
    alone = {"refresh-token": tab.cookies["refresh-token"]}
    for cookies in (before, alone):
        for path in (
            "/dashboard",
            "/session?returnTo=%2Fdashboard",
            "/login?ended=1",
            "/login",
            f"/dashboard?{recent()}",
        ):
            answer = await visit(tab.app, path, cookies, headers={header: "prefetch"})
            assert "set-cookie" not in answer.headers
    async with http_client() as client:
        for path in ("/api/auth/refresh", "/api/auth/logout", "/api/auth/me"):
            cookie = {"Cookie": f"refresh-token={alone['refresh-token']}", "Sec-Fetch-Mode": "navigate"}
            answer = await client.get(f"{tab.relay.url}{path}", headers={**cookie, header: "prefetch"})
            assert "set-cookie" not in answer.headers
    assert rotating.refreshes.total() == 0
    assert (await tab.open("/dashboard")).status_code == 200
    assert tab.redirects == 0


async def test_a_session_that_is_over_leads_to_the_login(tab: PageTab, rotating: RotatingBackend) -> None:
    """Cookies present and refused: at most three redirects, then the log-in, which is not redirected."""
    login = rotating.logins[user_of(rotating)]
    login.alive = False
    rotating.refused.add(tab.cookies["access-token"])
    answer = await tab.open("/dashboard")
    assert answer.status_code == 404  # the application of this test has no log-in page
    assert str(answer.url).endswith("/login?ended=1&returnTo=%2Fdashboard")
    assert tab.redirects == 2
    assert "refresh-token" not in tab.cookies


async def test_a_token_that_is_refused_after_a_good_refresh(tab: PageTab, rotating: RotatingBackend) -> None:
    """It would never end: three redirects, one refresh, and the log-in says that the session has ended."""

    class Everything(set[str]):
        def __contains__(self, _: object) -> bool:
            return True

    rotating.refused = Everything()
    answer = await tab.open("/dashboard")
    assert str(answer.url).endswith("/login?ended=1&returnTo=%2Fdashboard")
    assert tab.redirects == 3
    assert rotating.refreshes.total() == 1
    assert "refresh-token" in tab.cookies


async def test_a_refresh_that_fails_stays_on_its_page(tab: PageTab, rotating: RotatingBackend) -> None:
    """503 of the refresh route: one redirect, nobody is logged out, and a later try works."""
    del tab.cookies["access-token"]
    rotating.answer = lambda: Response(status_code=503)
    assert "data-following" in (await tab.open("/dashboard")).text
    assert tab.redirects == 1
    assert "refresh-token" in tab.cookies
    rotating.answer = None
    assert (await tab.open("/dashboard")).status_code == 200
