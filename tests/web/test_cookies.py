"""Cookies: how they are read, and the attributes that they are set and cleared with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from relay.core.errors import Reason, Refusal
from relay.sessions.base import Ended
from relay.sessions.cookies import SessionCookies
from relay.web.cookies import CLEARS_REFRESH, CookieOptions, clear_cookies, read_cookie, set_cookie
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


def test_two_cookies_have_their_reason() -> None:
    """Two cookies of a name, in one header or in two, are "repeated", also if they are equal."""
    for headers in ([f"{NAME}=a; {NAME}=a"], [f"{NAME}=a", f"{NAME}=b"], [f"{NAME}=;{NAME} = b"]):
        assert read(*headers) is Reason.SESSION_REPEATED


@given(st.lists(st.binary(max_size=80) | st.just(f"{NAME}=abc".encode()), max_size=4))
def test_any_bytes_are_read_or_refused(headers: list[bytes]) -> None:
    """No header makes the reader fail, and a value that is returned is never empty."""
    assert read(*headers) != ""


def test_a_cookie_is_set_for_https() -> None:
    """HttpOnly, Secure, SameSite=Lax, Path=/, its age, and no Domain: what the __Host- prefix demands."""
    response = Response()
    set_cookie(response, CookieOptions(name=NAME, max_age_s=900, secure=True), "abc")
    value, *attributes = response.headers["set-cookie"].split("; ")
    assert value == f"{NAME}=abc"
    assert sorted(attributes) == ["HttpOnly", "Max-Age=900", "Path=/", "SameSite=lax", "Secure"]


ACCESS = CookieOptions(name=NAME, max_age_s=900, secure=True)
REFRESH = CookieOptions(name="__Host-refresh-token", max_age_s=900, secure=True)


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
    clear_cookies(response, why, access=ACCESS, refresh=REFRESH)
    names = cleared(response.headers.getlist("set-cookie"))
    assert names == {NAME, "__Host-refresh-token"} if also_refresh else {NAME}
    assert set(CLEARS_REFRESH) == set(Ended), "a new cause needs its row here and in the table"


def test_a_cookie_is_cleared_with_the_same_attributes() -> None:
    """Clearing names the same path and flags, else browsers keep the cookie, and gives it no life."""
    response = Response()
    clear_cookies(response, Ended.EXPIRED, access=ACCESS, refresh=None)
    value, *attributes = response.headers["set-cookie"].split("; ")
    assert value == f'{NAME}=""'
    assert {"HttpOnly", "Max-Age=0", "Path=/", "SameSite=lax", "Secure"} <= set(attributes)
    assert not [attribute for attribute in attributes if attribute.lower().startswith("domain")]


def test_an_embedded_cookie_is_partitioned() -> None:
    """Set and cleared, it has SameSite=None, Secure and Partitioned: without them browsers block it in a frame."""
    embedded = CookieOptions(name=NAME, max_age_s=900, secure=True, embedded=True)
    response = Response()
    set_cookie(response, embedded, "abc")
    clear_cookies(response, Ended.EXPIRED, access=embedded, refresh=None)
    for line, age in zip(response.headers.getlist("set-cookie"), (900, 0), strict=True):
        assert sorted(line.split("; ")[1:]) == [
            "HttpOnly", f"Max-Age={age}", "Partitioned", "Path=/", "SameSite=none", "Secure"
        ]  # fmt: skip


def test_over_http_a_cookie_is_not_secure() -> None:
    """During development over http, a browser would not send a Secure cookie back."""
    response = Response()
    set_cookie(response, CookieOptions(name="access-token", max_age_s=900, secure=False), "abc")
    assert "Secure" not in response.headers["set-cookie"]
