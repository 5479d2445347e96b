"""The page boundary: who is sent where by the cookies alone, what no cache keeps, and arguments that can't work."""

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from relay.pages import ConfigurationError, PageBoundary
from relay.pages.visit import Visit
from relay.settings.bff import Bff, BffFields
from relay.settings.sessions import SessionSection
from tests.support.page_visitor import application, destination, visit

ACCESS, REFRESH = {"access-token": "a"}, {"refresh-token": "r"}


@pytest.mark.parametrize(
    ("path", "cookies", "location"),
    [
        ("/dashboard", {}, "/login?returnTo=%2Fdashboard"),
        ("/dashboard/7?a=1&b=%2F", {}, "/login?returnTo=%2Fdashboard%2F7%3Fa%3D1%26b%3D%252F"),
        ("/dashboard?q=a%20b", {}, "/login?returnTo=%2Fdashboard%3Fq%3Da%2Bb"),
        ("/dashboard/" + "x" * 3000, {}, "/login"),
        ("/dashboard", {"access-token": "", "other": "x"}, "/login?returnTo=%2Fdashboard"),
        ("/dashboard", {"xaccess-token": "x", "access-token.x": "x"}, "/login?returnTo=%2Fdashboard"),
        ("/login", ACCESS, "/dashboard"),
        ("/login", REFRESH, "/dashboard"),
        ("/login", {"access-token.0": "a", "access-token.1": "b"}, "/dashboard"),
        ("/login?returnTo=%2Fdashboard%2F7", ACCESS, "/dashboard/7"),
        ("/login?returnTo=%2F%2Fevil.example", ACCESS, "/"),
        ("/login?ended=0", ACCESS, "/dashboard"),
        ("/session", {}, "/login"),
        ("/session?returnTo=%2Fdashboard", {}, "/login?returnTo=%2Fdashboard"),
        ("/session?returnTo=%2Fdashboard", ACCESS, "/login?ended=1&returnTo=%2Fdashboard"),
        ("/session?returnTo=https%3A%2F%2Fevil.example", {}, "/login"),
    ],
)
async def test_visitors_are_redirected(path: str, cookies: dict[str, str], location: str) -> None:
    """By the cookies alone, without a call: there is no backend."""
    answer = await visit(application(None), path, cookies)
    destination(answer)
    assert answer.headers["location"] == location
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("path", "cookies"),
    [
        ("/login", {}),
        ("/login?ended=1", ACCESS),
        ("/login?ended=1&returnTo=%2Fdashboard", REFRESH),
        ("/dashboard.css", {}),
        ("/dashboard.css", ACCESS),
    ],
)
async def test_others_reach_the_application(path: str, cookies: dict[str, str]) -> None:
    """The log-in, also after an end with cookies, and what only looks like a protected path."""
    answer = await visit(application(None), path, cookies)
    assert answer.status_code == 200
    assert ("cache-control" in answer.headers) == path.startswith("/login")


_TEXT = st.one_of(
    st.text(max_size=20), st.sampled_from(["/", "//", "http://[", "?", "&returnTo=", "%2f", "\\", "ended=1"])
)
_BYTES = st.lists(_TEXT, max_size=6).map(lambda texts: "".join(texts).encode("latin-1", "replace"))


@given(path=_BYTES, query=_BYTES, referer=_BYTES, cookie=_BYTES, method=st.sampled_from(["GET", "POST"]))
def test_no_request_breaks_the_boundary(
    path: bytes, query: bytes, referer: bytes, cookie: bytes, method: str
) -> None:
    """Whatever a request holds: a redirect goes to the log-in, the renewal or a page of this origin, in plain ASCII."""
    app = application(None, protected=["/dashboard"])
    for start in (b"/dashboard/", b"/login", b"/session", b"/"):
        scope = {
            "type": "http",
            "method": method,
            "path": (start + path).decode("latin-1"),
            "raw_path": start + path,
            "query_string": query,
            "headers": [
                (b"host", b"app.example.com"),
                (
                    b"referer",
                    referer if referer.startswith(b"http://[") else b"http://app.example.com" + referer,
                ),
                (b"cookie", b"refresh-token=" + cookie),
            ],
        }
        request = Visit(scope, app._options, None)
        for answer in (request.boundary_answer(), request._ended_answer(), request._unavailable(503, None)):
            if answer is not None and (location := answer.headers.get("location")) is not None:
                assert location.isascii()
                assert location.isprintable()
                assert location.startswith("/")
                assert not location.startswith(("//", "/\\"))


async def test_methods() -> None:
    """A form's POST is redirected with 303, and to the page with the form; HEAD is as GET."""
    app = application(None)
    form = {"Referer": "http://app.example.com/dashboard/form?a=1"}
    answer = await visit(app, "/dashboard/save", method="POST", headers=form)
    assert answer.status_code == 303
    assert destination(answer) == ("/login", {"returnTo": ["/dashboard/form?a=1"]})
    elsewhere = {"Referer": "http://evil.example/dashboard/form"}
    answer = await visit(app, "/dashboard/save", method="POST", headers=elsewhere)
    assert destination(answer) == ("/login", {"returnTo": ["/dashboard"]})
    assert (await visit(app, "/dashboard", method="HEAD")).status_code == 307
    assert (await visit(app, "/login", ACCESS, method="POST")).status_code == 405


async def test_a_script_gets_no_redirect() -> None:
    """A fetch would follow a redirect to the log-in page and take that for its data."""
    headers = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    answer = await visit(application(None), "/dashboard/data", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")
    answer = await visit(application(None), "/dashboard/data", REFRESH, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "session_renew")
    assert answer.json()["retryable"] is True


async def test_the_page_that_renews_runs_its_own_script_only() -> None:
    """Its policy names one script by its hash; what a link brings stands in it escaped, and can't leave the origin."""
    link = "/session?returnTo=%2Fdashboard%3Fa%3D%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%23x"
    answer = await visit(application(None), link, REFRESH)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert answer.text.count("<script>") == 1
    assert "<script>alert" not in answer.text
    assert "set-cookie" not in answer.headers
    assert 'data-refresh="/api/auth/refresh"' in answer.text
    assert policy.endswith("frame-ancestors 'none'")
    evil = await visit(application(None), "/session?returnTo=%2F%2Fevil.example", REFRESH)
    assert "evil" not in evil.text
    embedded = application(None, embedded_in=["https://portal.example.com", "https://*.example.org"])
    policy = (await visit(embedded, "/session", REFRESH)).headers["content-security-policy"]
    assert policy.endswith("frame-ancestors https://portal.example.com https://*.example.org")


async def test_without_a_backend_and_without_a_boundary_the_error_says_so() -> None:
    """The mistake of a first try: one sentence says what to write."""
    with pytest.raises(ConfigurationError, match=r"bff\.backend"):
        await visit(application(None), "/dashboard", ACCESS)
    inner = application(None)._app
    with pytest.raises(ConfigurationError, match="PageBoundary"):
        await visit(inner, "/dashboard")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"protected": "/dashboard"}, "protected"),
        ({"protected": ["dashboard"]}, "protected"),
        ({"protected": ["/a?b"]}, "protected"),
        ({"protected": ["/login"]}, "login"),
        ({"protected": ["/session"]}, "session"),
        ({"login": "/"}, "login"),
        ({"login": "//evil.example"}, "login"),
        ({"home": "https://evil.example"}, "home"),
        ({"home": "/\\evil.example"}, "home"),
        ({"home": "/\N{CJK UNIFIED IDEOGRAPH-4E2D}"}, "home"),
        ({"backend": "127.0.0.1:9000"}, "backend"),
        ({"backend": "http://127.0.0.1:9000/"}, "backend"),
        ({"backend": "http://127.0.0.1:port"}, "backend"),
        ({"backend": "http://user@127.0.0.1"}, "backend"),
        ({"me_path": "auth/me"}, "me_path"),
        ({"access_cookie": "a", "refresh_cookie": "a"}, "refresh_cookie"),
        ({"trusted_proxies": ["localhost"]}, "trusted_proxies"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"embedded_in": "https://portal.example.com"}, "embedded_in"),
        ({"embedded_in": ["https://a.example; script-src *"]}, "embedded_in"),
    ],
)
def test_arguments_that_cannot_work(options: dict[str, Any], name: str) -> None:
    """Each is refused at the start, and the error names the argument."""
    with pytest.raises(ConfigurationError, match=name):
        application(None, **options)


def test_the_defaults_are_the_relays() -> None:
    """A page server without arguments of its own fits a relay without settings of its own."""
    options = PageBoundary(lambda *_: None, protected=["/a"])._options  # type: ignore[arg-type]  # not called
    settings = Bff()
    assert options.access_cookie == SessionSection.model_fields["cookie"].default
    assert options.refresh_cookie == settings.refresh_cookie
    assert options.me_path == settings.me_path
    assert options.user == BffFields().user
    assert options.timeout_s == settings.timeout_s


async def test_other_kinds_of_requests_pass() -> None:
    """A WebSocket and the lifespan reach the application; the latter closes the connections at its end."""
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(_message: Message) -> None:
        raise AssertionError

    boundary = PageBoundary(app, protected=["/"], backend="http://127.0.0.1:9")
    await boundary({"type": "lifespan"}, receive, send)
    await boundary({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert seen == ["lifespan", "websocket"]


async def test_an_answer_about_a_session_is_kept_by_nobody() -> None:
    """A protected page says no-store, if it does not say something itself."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"cache-control", b"private, max-age=60")] if scope["path"] == "/a/own" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    boundary = PageBoundary(app, protected=["/a"])
    found: list[httpx.Response] = [
        await visit(boundary, path, {"__Host-access-token": "x"}) for path in ("/a", "/a/own", "/b")
    ]
    assert [answer.headers.get("cache-control") for answer in found] == [
        "private, no-store",
        "private, max-age=60",
        None,
    ]
