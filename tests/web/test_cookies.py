"""Cookies: how they are read, and the attributes that they are set and cleared with."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from relay.core.errors import Reason, Refusal
from relay.sessions.base import Ended
from relay.sessions.cookies import SessionCookies
from relay.web.cookies import (
    CLEARS_REFRESH,
    CookieOptions,
    OwnCookies,
    clear_cookies,
    read_cookie,
    set_cookie,
)
from tests.support.cleared_cookies import cleared
from tests.support.http_requests import make_request

NAME = "__Host-access-token"


def read(*headers: str | bytes) -> str | Reason:
    """Return the cookie's value from these Cookie headers, or why there is none."""
    request = make_request(*(("Cookie", header) for header in headers))
    result = read_cookie(request, SessionCookies(names=(NAME,)))
    return result.reason if isinstance(result, Refusal) else result


def test_one_cookie_is_read() -> None:
    """The value comes back as it was sent, among others, in quotes or not."""
    assert read(f"{NAME}=abc") == "abc"
    assert read(f"a=b; {NAME}=abc; c=d") == "abc"
    assert read(f"a=b;{NAME}=abc;") == "abc"
    assert read(f'{NAME}="abc"') == "abc"
    assert read(f"{NAME}=a=b=c") == "a=b=c"
    assert read("a=b", f"{NAME}=abc") == "abc"


def test_a_missing_cookie_has_its_reason() -> None:
    """No cookie, another one, an empty one and a name without a value are all "missing"."""
    for headers in (
        [],
        [""],
        ["a=b"],
        [NAME],
        [f"{NAME}="],
        [f'{NAME}=""'],
        [f"x{NAME}=a"],
        [NAME.lower() + "=a"],
    ):
        assert read(*headers) is Reason.SESSION_MISSING


def test_two_values_have_their_reason() -> None:
    """Two values of a name, in one header or in two, are "repeated". The same value twice is one, an empty one none."""
    for headers in ([f"{NAME}=a; {NAME}=b"], [f"{NAME}=a", f"{NAME}=b"], [f"{NAME}=a; {NAME}=a; {NAME} = b"]):
        assert read(*headers) is Reason.SESSION_REPEATED
    for headers in (
        [f"{NAME}=a; {NAME}=a"],
        [f"{NAME}=a", f"{NAME}=a"],
        [f"{NAME}=; {NAME}=a"],
        [f'{NAME}=a; {NAME}=""'],
    ):
        assert read(*headers) == "a"


@given(st.lists(st.binary(max_size=80) | st.just(f"{NAME}=abc".encode()), max_size=4))
def test_any_bytes_are_read_or_refused(headers: list[bytes]) -> None:
    """No header makes the reader fail, and a value that is returned is never empty."""
    assert read(*headers) != ""


def test_a_cookie_is_set_for_https() -> None:
    """HttpOnly, Secure, SameSite=Lax, Path=/, its age, and no Domain: what the __Host- prefix demands."""
    response = Response()
    set_cookie(make_request(), response, CookieOptions(name=NAME, max_age_s=900, secure=True), "abc")
    value, *attributes = response.headers["set-cookie"].split("; ")
    assert value == f"{NAME}=abc"
    assert sorted(attributes) == ["HttpOnly", "Max-Age=900", "Path=/", "SameSite=lax", "Secure"]


ACCESS = CookieOptions(name=NAME, max_age_s=900, secure=True)
REFRESH = CookieOptions(name="__Host-refresh-token", max_age_s=900, secure=True)
OWN = OwnCookies(session=SessionCookies(names=(NAME, "shop")), access=ACCESS, refresh=REFRESH)
WITH_COOKIE = make_request(("Cookie", f"{NAME}=x"))


@pytest.mark.parametrize(
    ("why", "also_refresh"),
    [
        (Ended.LOGGED_OUT, True),
        (Ended.REVOKED, True),
        (Ended.EXPIRED, False),
        (Ended.WRONG_SIGNATURE, False),
        (Ended.OTHER_KIND, False),
    ],
)
def test_each_cause_clears_its_cookies(why: Ended, also_refresh: bool) -> None:
    """Each cause clears the access cookie, and a log-out and a revocation clear the refresh cookie too."""
    response = Response()
    clear_cookies(WITH_COOKIE, response, why, OWN)
    names = cleared(response.headers.getlist("set-cookie"))
    assert names == {NAME, "__Host-refresh-token"} if also_refresh else {NAME}
    assert set(CLEARS_REFRESH) == set(Ended), "a new cause needs its row here and in the table"


def test_only_the_cookies_of_the_refused_session_are_cleared() -> None:
    """With several names the session was in the first one that came. Its chunks are cleared with it."""
    for cookie, names in (
        (f"{NAME}.0=a; {NAME}.1=b; shop=c", {f"{NAME}.0", f"{NAME}.1"}),
        ("shop=c; other=d; shop.sig=e", {"shop"}),
    ):
        response = Response()
        clear_cookies(make_request(("Cookie", cookie)), response, Ended.EXPIRED, OWN)
        assert cleared(response.headers.getlist("set-cookie")) == names
    response = Response()
    clear_cookies(make_request(("Cookie", f"shop.0=c; {NAME}=a")), response, Ended.LOGGED_OUT, OWN)
    assert cleared(response.headers.getlist("set-cookie")) == {NAME, "shop.0", "__Host-refresh-token"}


def test_a_log_out_clears_a_planted_cookie_too() -> None:
    """A cookie that came twice is also cleared for the parent domains and the longer paths that may have set it."""
    plain = replace(ACCESS, name="access-token", secure=False)
    own = OwnCookies(
        session=SessionCookies(names=("access-token",)),
        access=plain,
        refresh=None,
        domains=("a.example.com", "example.com"),
    )
    response = Response()
    clear_cookies(make_request(("Cookie", "access-token=a; access-token=b")), response, Ended.LOGGED_OUT, own)
    lines = [line.split("; ") for line in response.headers.getlist("set-cookie")]
    where = {
        (next((part for part in line if part.startswith("Domain")), ""), path)
        for line in lines
        for path in line
        if path.startswith("Path")
    }
    assert len(where) == len(lines) == 12
    assert {("Domain=example.com", "Path=/"), ("", "Path=/"), ("", "Path=/auth")} <= where
    assert all("Max-Age=0" in line for line in lines)


@pytest.mark.parametrize("length", [1, 3936, 3937, 7872, 7873, 19_680])
def test_a_long_value_is_set_in_chunks(length: int) -> None:
    """The chunks are Auth.js's: 3936 characters each, numbered from 0. What was there before is deleted."""
    value = ("abcdefghij" * 2000)[:length]
    before = f"{NAME}=x; {NAME}.0=x; {NAME}.4=x; {NAME}.sig=x"
    response = Response()
    set_cookie(make_request(("Cookie", before)), response, ACCESS, value)
    lines = response.headers.getlist("set-cookie")
    names = [NAME] if length <= 3936 else [f"{NAME}.{index}" for index in range(-(-length // 3936))]
    kept = {
        line.partition("=")[0]: line.partition("=")[2].partition(";")[0]
        for line in lines
        if "Max-Age=900" in line
    }
    assert list(kept) == names
    assert all(len(line) < 4096 for line in lines)
    assert cleared(lines) == {NAME, f"{NAME}.0", f"{NAME}.4"} - set(names)
    assert read("; ".join(f"{name}={piece}" for name, piece in kept.items())) == value


def test_a_cookie_is_cleared_with_the_same_attributes() -> None:
    """Clearing names the same path and flags, else browsers keep the cookie, and gives it no life."""
    response = Response()
    clear_cookies(WITH_COOKIE, response, Ended.EXPIRED, OWN)
    value, *attributes = response.headers["set-cookie"].split("; ")
    assert value == f'{NAME}=""'
    assert {"HttpOnly", "Max-Age=0", "Path=/", "SameSite=lax", "Secure"} <= set(attributes)
    assert not [attribute for attribute in attributes if attribute.lower().startswith("domain")]


def test_an_embedded_cookie_is_partitioned() -> None:
    """Set and cleared, it has SameSite=None, Secure and Partitioned: without them browsers block it in a frame."""
    embedded = CookieOptions(name=NAME, max_age_s=900, secure=True, embedded=True)
    response = Response()
    set_cookie(make_request(), response, embedded, "abc")
    clear_cookies(WITH_COOKIE, response, Ended.EXPIRED, replace(OWN, access=embedded))
    for line, age in zip(response.headers.getlist("set-cookie"), (900, 0), strict=True):
        assert sorted(line.split("; ")[1:]) == [
            "HttpOnly", f"Max-Age={age}", "Partitioned", "Path=/", "SameSite=none", "Secure"
        ]  # fmt: skip


def test_over_http_a_cookie_is_not_secure() -> None:
    """During development over http, a browser would not send a Secure cookie back."""
    response = Response()
    set_cookie(
        make_request(), response, CookieOptions(name="access-token", max_age_s=900, secure=False), "abc"
    )
    assert "Secure" not in response.headers["set-cookie"]
