"""Rows 8 and 9 of the proxy's list: which paths go on, and that the checked bytes are the ones that are sent."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.bff.proxy.paths import PathTable, Target, loosened, read_target
from relay.core.errors import Reason, Refusal

ROUTES = {"/users": "users", "/users/admin": "admin", "/orders": "orders", "/a-b_c.d": "odd"}
TABLE = PathTable(ROUTES, forbidden=["/auth", "/session/login", "/Auth/Refresh"])

DOTS = [
    "..",
    ".",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "..;",
    "..;a=b",
    ".;",
    "..%3b",
    "..%3Bx",
    "..%20",
    "..%2e",
    "...",
    ";x",
    "%3b",
]
SEPARATORS = [
    "%2f",
    "%2F",
    "%5c",
    "%5C",
    "\\",
    "//",
    "/%2f/",
    "%252f",
    "%255c",
    "%252e%252e",
    "%25%32%66",
    "%252E",
]
RAW = [
    "%00",
    "%0a",
    "%0D",
    "%09",
    "%7f",
    "%1f",
    "%C2%80",
    "%c0%ae",
    "%c0%af",
    "%e0%80%af",
    "%FF",
    "%",
    "%4",
    "%zz",
]
RAW += ["%u002e", "<", ">", '"', "{", "}", "`", "\x7f", "%41", "%7E", "%2d", "%5F", "%30", "#", "#/../auth"]
PLACES = ["users/{}", "users/{}/x", "{}/users", "users/a{}b/c"]
BROKEN = [place.format(part) for place, part in itertools.product(PLACES, [*DOTS, *SEPARATORS, *RAW])]
WHOLE_SEGMENTS_ONLY = {f"users/a{part}b/c" for part in DOTS if "%2" not in part or part == "..%20"}
BROKEN = [path for path in BROKEN if path not in WHOLE_SEGMENTS_ONLY]

GOOD = [
    "users",
    "users/",
    "users/7",
    "users/7/",
    "users/a.b",
    "users/..a",
    "users/a;b=c",
    "users/%20",
    "users/%C3%A9",
]
GOOD += [
    "users/a%3Ab",
    "users/@me",
    "users/100%25",
    "users/$x",
    "users/(1)",
    "users/a|b",
    "users/a%2Cb",
    "a-b_c.d/x",
]
QUERIES = [
    "",
    "?",
    "?b=2&a=1&b=3",
    "?flag",
    "?a+b",
    "?x=%E9%FF",
    "?%2e%2e%2f",
    "?u=http://x/../y",
    "?a=%00",
    "?[]='\\`{}|^",
]


def test_row_8_broken_paths_number_at_least_a_hundred() -> None:
    """The table is as long as the list asks for."""
    assert len(set(BROKEN)) >= 200


def test_row_8_a_path_that_two_programs_read_differently_is_refused() -> None:
    """Dots, slashes and backslashes in any spelling, double escapes, control characters; with or without a query."""
    for path, query in itertools.product(BROKEN, ("", "?x=1")):
        found = read_target(f"/api/proxy/{path}{query}".encode("latin-1"))
        assert isinstance(found, Refusal), path
        assert found.reason is Reason.PATH_REFUSED, path
        assert path not in str(found)


def test_row_9_what_was_checked_is_sent_byte_for_byte() -> None:
    """Neither the path nor the query is decoded, sorted or escaped."""
    spellings = list(itertools.product(GOOD, QUERIES))
    assert len(spellings) >= 100
    for path, query in spellings:
        raw = f"/api/proxy/{path}{query}".encode()
        target = read_target(raw)
        assert isinstance(target, Target), raw
        assert b"/api/proxy" + target.raw == raw
        assert not isinstance(TABLE.find(target), Refusal), raw


@given(st.binary(max_size=40))
def test_row_8_any_bytes_are_passed_on_as_they_are_or_refused(rest: bytes) -> None:
    """Whatever comes, nothing is normalised, and no segment of the accepted path is one of dots."""
    target = read_target(b"/api/proxy/" + rest)
    if isinstance(target, Target):
        assert target.raw == b"/" + rest
        assert not {".", ".."} & set(loosened(target.path).split("/"))
        assert b"//" not in target.path


@given(st.text(alphabet="/.%25ceEfF;\\ab", max_size=24))
def test_row_8_no_spelling_leaves_its_prefix(rest: str) -> None:
    """However often a backend decodes an accepted path, it stays below the prefix that was matched."""
    target = read_target(f"/api/proxy/users/{rest}".encode())
    if isinstance(target, Target):
        path = loosened(target.path)
        for _ in range(3):
            path = loosened(path)
            assert path.startswith("/users")
            assert ".." not in path.split("/")


@pytest.mark.parametrize(
    "raw",
    [
        b"http://evil.example/api/proxy/users",
        b"HTTP://x/",
        b"evil.example:443",
        b"*",
        b"",
        b"\\api\\proxy\\users",
    ],
)
def test_an_absolute_target_is_refused(raw: bytes) -> None:
    """A request line with a host in it is for forward proxies."""
    found = read_target(raw)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.PATH_REFUSED


@pytest.mark.parametrize(
    "raw", [b"/api/%70roxy/users", b"//api/proxy/users", b"/api/proxyusers", b"/API/proxy/users", b"/"]
)
def test_another_prefix_is_unknown(raw: bytes) -> None:
    """The prefix is compared byte for byte."""
    found = read_target(raw)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.ROUTE_UNKNOWN


def find(path: str) -> "tuple[str, str] | Refusal":
    """Look a path up in the table of this file."""
    target = read_target(f"/api/proxy{path}".encode())
    assert isinstance(target, Target)
    return TABLE.find(target)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/users", "users"),
        ("/users/7/orders", "users"),
        ("/users/admin", "admin"),
        ("/users/admin/x", "admin"),
        ("/users/administrators", "users"),
        ("/orders/", "orders"),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(path: str, route: str) -> None:
    """`/users/admin` is not a prefix of `/users/administrators`."""
    assert find(path) == ({name: prefix for prefix, name in ROUTES.items()}[route], route)


@pytest.mark.parametrize("path", ["/usersx", "/", "/users;x/admin", "/other", "/USERSX", "/user", "/%C3%A9"])
def test_a_path_below_no_prefix_is_unknown(path: str) -> None:
    """What the settings do not name does not go on."""
    found = find(path)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.ROUTE_UNKNOWN


@pytest.mark.parametrize(
    "path",
    [
        "/users/Admin",
        "/users/ADMIN/x",
        "/users/admin;x=1",
        "/users/admin;/x",
        "/users/admin%3Bx",
        "/users/admin.",
    ],
)
def test_a_careless_backend_can_not_be_led_to_another_route(path: str) -> None:
    """A backend that ignores the letter case or parameters would serve /users/admin by the rules of /users."""
    found = find(path)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.PATH_REFUSED


@pytest.mark.parametrize(
    "path",
    [
        "/auth",
        "/auth/login",
        "/AUTH/x",
        "/Auth/",
        "/auth;x/login",
        "/session/login",
        "/SESSION/Login",
        "/auth%3B/x",
    ],
)
def test_authentication_routes_are_never_reached(path: str) -> None:
    """Their answers hold tokens. No letter case, no parameter and no route of `/` opens them."""
    table = PathTable({"/": "all"}, forbidden=["/auth", "/session/login"])
    target = read_target(f"/api/proxy{path}".encode())
    assert isinstance(target, Target)
    found = table.find(target)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.ROUTE_UNKNOWN
