"""Rows 10, 14, 15, 23 and 24 of the proxy's list, as far as header lists decide them."""

import itertools
from collections.abc import Callable

import h11
import pytest

from relay.bff.proxy.headers import (
    HeaderLists,
    check_request_name,
    check_response_name,
    location_below_proxy,
    own_headers,
)

LISTS = HeaderLists(
    request=frozenset({"x-tenant"}),
    response=frozenset({"x-total"}),
    request_cookies=frozenset({"theme"}),
    response_cookies=frozenset({"theme"}),
)
NEVER_UP = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "authorization",
    "cookie2",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-user",
    "x-user-id",
    "x-user-email",
    "x-user-roles",
    "x-authenticated-user",
    "remote-user",
    "x-remote-user",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-method",
    "accept-encoding",
    "accept-charset",
    "origin",
    "referer",
    "host",
    "content-length",
    "content-encoding",
    "sec-fetch-site",
    "sec-fetch-mode",
    "sec-fetch-dest",
    "sec-purpose",
    "x-relay-csrf",
    "x-csrf-token",
    "from",
    "user-agent",
    "via",
    "x-request-id",
    "x_forwarded_for",
    "x-wap-profile",
    "proxy",
    "x-middleware-subrequest",
]
NEVER_DOWN = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "set-cookie2",
    "www-authenticate",
    "authentication-info",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
    "clear-site-data",
    "service-worker-allowed",
    "content-security-policy",
    "content-security-policy-report-only",
    "cross-origin-resource-policy",
    "cross-origin-opener-policy",
    "cross-origin-embedder-policy",
    "strict-transport-security",
    "public-key-pins",
    "cache-control",
    "expires",
    "pragma",
    "age",
    "vary",
    "server",
    "x-powered-by",
    "via",
    "link",
    "refresh",
    "sourcemap",
    "x-sourcemap",
    "x-frame-options",
    "x-content-type-options",
    "x-xss-protection",
    "x-accel-redirect",
    "x-accel-buffering",
    "x-sendfile",
    "nel",
    "report-to",
    "reporting-endpoints",
    "alt-svc",
    "content-encoding",
    "content-length",
    "digest",
    "content-digest",
    "content-md5",
    "trailers",
    "timing-allow-origin",
    "permissions-policy",
    "referrer-policy",
    "speculation-rules",
    "x-dns-prefetch-control",
    "date",
]
PASSES_UP = [
    "accept",
    "accept-language",
    "content-type",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "range",
    "idempotency-key",
    "traceparent",
    "x-tenant",
]
PASSES_DOWN = [
    "content-type",
    "content-language",
    "content-disposition",
    "etag",
    "last-modified",
    "content-range",
    "accept-ranges",
    "retry-after",
    "location",
    "x-total",
]


def fields(*names: str) -> list[tuple[bytes, bytes]]:
    """Return one header of each name."""
    return [(name.encode(), b"v") for name in names]


def test_rows_10_and_15_only_what_is_listed_goes_on() -> None:
    """Over a hundred headers that change who or what a request is never arrive; the listed ones do."""
    assert len(NEVER_UP) + len(NEVER_DOWN) >= 100
    assert [name.decode() for name, _ in LISTS.upward(fields(*NEVER_UP, *PASSES_UP))] == PASSES_UP
    assert [name.decode() for name, _ in LISTS.downward(fields(*NEVER_DOWN, *PASSES_DOWN))] == PASSES_DOWN


CONNECTIONS = [
    "{}",
    "close, {}",
    "{}, close",
    " {} ",
    "keep-alive,\t{}\t,x",
    "X-NONE,{}",
    ",,{},,",
    "{},{}",
    "close,{}",
]
SPELLINGS: list[Callable[[str], str]] = [str.lower, str.upper, str.title]
NAMED = [
    (form.format(*[spell(name)] * form.count("{}")), name)
    for form, spell, name in itertools.product(CONNECTIONS, SPELLINGS, PASSES_UP)
]


def test_row_10_what_connection_names_is_dropped_in_both_directions() -> None:
    """In over a hundred spellings, also when Connection comes twice: such a field belongs to one hop only."""
    assert len(NAMED) >= 100
    for value, name in NAMED:
        for headers in (
            [(b"connection", value.encode()), *fields(name)],
            [*fields(name), (b"connection", b"close"), (b"connection", value.encode())],
        ):
            assert LISTS.upward(headers) == [], value
            lists = HeaderLists(response=frozenset({name}))
            assert lists.downward(headers) == [], value


@pytest.mark.parametrize("value", [b"a ", b"\ta\t ", b"", b" ", b"a\xff", b"\t"])
def test_white_space_around_a_value_is_no_part_of_it(value: bytes) -> None:
    """Whatever the listener passes on can be sent: the HTTP library takes no white space there."""
    for name in set(PASSES_UP) - {"range"}:  # an empty one asks for nothing, and is left out
        headers = [(b"host", b"x"), *LISTS.upward([(name.encode(), value)])]
        [_, (_, sent)] = h11.Request(method="GET", target="/", headers=headers).headers
        assert sent == value.strip(b" \t")


def test_row_14_only_named_cookies_pass() -> None:
    """Upward and downward, whatever else the Cookie header and the Set-Cookie headers hold."""
    up = LISTS.upward(
        [(b"cookie", b"access-token=a; theme=dark; x=theme=1"), (b"cookie", b"refresh-token=b;themes=2")]
    )
    assert up == [(b"cookie", b"theme=dark")]
    headers = [
        (b"set-cookie", b"theme=light; Path=/"),
        (b"set-cookie", b"access-token=evil; Path=/"),
        (b"set-cookie", b"=access-token=evil"),
        (b"set-cookie", b"theme"),
        (b"set-cookie", b"Theme=x"),
        (b"set-cookie", b"theme=x\x00y"),
    ]
    assert LISTS.downward(headers) == headers[:1]
    assert HeaderLists().upward([(b"cookie", b"theme=dark")]) == []
    assert HeaderLists().downward(headers) == []


@pytest.mark.parametrize(
    "name", [*NEVER_UP[:12], "x-forwarded-for", "X-Original-URL", "sec-fetch-site", "a_b", "", "a b"]
)
def test_settings_can_not_add_a_dangerous_request_header(name: str) -> None:
    """A list that settings extend can't be extended by what changes the sender or the end of a request."""
    with pytest.raises(ValueError, match="must"):
        check_request_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "Set-Cookie",
        "clear-site-data",
        "access-control-allow-origin",
        "www-authenticate",
        "cache-control",
        "x_y",
    ],
)
def test_row_23_settings_can_not_add_a_dangerous_response_header(name: str) -> None:
    """CORS, cookies, caching and the content policy stay the relay's own."""
    with pytest.raises(ValueError, match="must"):
        check_response_name(name)


def test_settings_can_add_an_ordinary_header() -> None:
    """In lower case, as headers are compared."""
    assert (check_request_name("X-Tenant"), check_response_name("X-Total")) == ("x-tenant", "x-total")


ORIGIN = "http://backend:9000"


@pytest.mark.parametrize(
    ("location", "below"),
    [
        ("/orders/7", "/api/proxy/orders/7"),
        ("http://backend:9000/orders/7?x=1#y", "/api/proxy/orders/7?x=1#y"),
        ("HTTP://BACKEND:9000/orders", "/api/proxy/orders"),
        ("http://backend:9000", "/api/proxy/"),
        ("8", "/api/proxy/orders/8"),
        ("../users", "/api/proxy/users"),
        ("?page=2", "/api/proxy/orders/7?page=2"),
        ("//backend:9000/x", "/api/proxy/x"),
    ],
)
def test_row_24_a_location_of_the_backend_is_rewritten(location: str, below: str) -> None:
    """Absolute or relative: the browser follows it through the proxy."""
    assert location_below_proxy(location.encode(), origin=ORIGIN, path=b"/orders/7") == below.encode()


@pytest.mark.parametrize(
    "location",
    [
        "https://backend:9000/",
        "http://backend/",
        "http://evil.example/",
        "//evil.example/x",
        "http://backend:9000.evil.example/",
        "http://backend:9000@evil.example/",
        "\\\\evil.example",
        "/\\evil.example",
        "http://backend:9000//evil.example/x",
        "javascript:alert(1)",
        "data:text/html,x",
        "",
        " /x",
        "/a b",
        "/\x00",
        "http://[",
        "mailto:a@b",
        "http:/x",
        "///evil.example",
    ],
)
def test_row_24_a_location_elsewhere_is_refused(location: str) -> None:
    """Another host, another scheme, and texts that browsers read as another host."""
    assert location_below_proxy(location.encode("latin-1"), origin=ORIGIN, path=b"/orders/7") is None


def test_row_30_a_navigation_gets_an_attachment() -> None:
    """Whatever the backend says, except its own attachment with a file name."""

    def disposition(**options: "bool | bytes") -> list[bytes]:
        headers = own_headers(**options)  # type: ignore[arg-type]  # as the tests below name them
        assert dict(headers)[b"cache-control"] == b"private, no-store"
        assert b"sandbox" in dict(headers)[b"content-security-policy"]
        return [value for name, value in headers if name == b"content-disposition"]

    assert disposition(attachment=True) == [b"attachment"]
    assert disposition(attachment=True, disposition=b"inline") == [b"attachment"]
    assert disposition(attachment=True, disposition=b'attachment; filename="a.csv"') == [
        b'attachment; filename="a.csv"'
    ]
    assert disposition(attachment=False) == []
    assert disposition(attachment=False, disposition=b"inline") == [b"inline"]
