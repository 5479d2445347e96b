"""Cross-site request forgery: no route that changes something or gives a token answers another site's page."""

import asyncio

import pytest
from starlette.routing import BaseRoute, Route

from relay.server.parts import make_parts
from relay.server.public import public_app
from relay.settings.load import load
from tests.support.raw_http import exchange, head, post
from tests.support.relay_process import Relay, make_relay

Fields = list[tuple[str, str]]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Every public route that does more than read, as (method, path), out of the application itself."""
    folder = tmp_path_factory.mktemp("routes")
    make_relay(folder, bff='backend = "http://127.0.0.1:9"')

    async def public_routes() -> list[BaseRoute]:
        async with make_parts(load(folder / "relay.toml")) as parts:
            return public_app(parts, ()).routes

    table = asyncio.run(public_routes())
    assert all(isinstance(route, Route) for route in table), "a mount would hide its routes from this test"
    return [
        (method, route.path)
        for route in table
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"GET", "HEAD"})
    ]


def abuses(relay: Relay) -> dict[str, Fields]:
    """Requests that no page of the application makes, each with what it would prove itself with."""
    own, evil = relay.url, "https://evil.example"
    return {
        "no proof": [],
        "another site": [("Origin", evil)],
        "a sandboxed frame": [("Origin", "null")],
        "an empty origin": [("Origin", "")],
        "a suffix": [("Origin", own + ".evil.example")],
        "a prefix": [("Origin", own[:-1])],
        "a sibling": [("Origin", own.replace("127.0.0.1", "127.0.0.2"))],
        "a user part": [("Origin", own.replace("://", "://evil@"))],
        "another scheme": [("Origin", own.replace("http:", "https:"))],
        "another port": [("Origin", "http://127.0.0.1")],
        "a slash": [("Origin", own + "/")],
        "upper case": [("Origin", own.replace("http", "HTTP"))],
        "two origins, the other first": [("Origin", evil), ("Origin", own)],
        "two origins, the other last": [("Origin", own), ("Origin", evil)],
        "the own one twice": [("Origin", own), ("Origin", own)],
        "a list": [("Origin", f"{own}, {evil}")],
        "another site that fakes the header": [("Origin", evil), ("X-Relay-CSRF", "1")],
        "another site that fakes the fetch": [("Origin", evil), ("Sec-Fetch-Site", "same-origin")],
        "cross-site": [("Sec-Fetch-Site", "cross-site")],
        "same-site": [("Sec-Fetch-Site", "same-site")],
        "typed by the user": [("Sec-Fetch-Site", "none")],
        "an unknown site": [("Sec-Fetch-Site", "SAME-ORIGIN")],
        "two sites": [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
        "cross-site that fakes the header": [("Sec-Fetch-Site", "cross-site"), ("X-Relay-CSRF", "1")],
        "another value": [("X-Relay-CSRF", "true")],
        "an empty value": [("X-Relay-CSRF", "")],
        "only a referer": [("Referer", own + "/")],
        "only a host": [("X-Forwarded-Host", "127.0.0.1")],
        "a Bearer token beside the cookie": [("Authorization", f"Bearer {relay.session()}")],
    }


def without_cookie(relay: Relay) -> dict[str, Fields]:
    """Requests without a cookie that a browser could still be made to send."""
    bearer = ("Authorization", f"Bearer {relay.session()}")
    return {
        "cached Basic credentials": [("Authorization", "Basic dXNlcjpwYXNz")],
        "Bearer from another site": [bearer, ("Origin", "https://evil.example")],
        "Bearer from nowhere": [bearer, ("Origin", "null")],
        "two Authorization headers": [bearer, ("Authorization", "Basic dXNlcjpwYXNz")],
    }


def test_the_table_is_whole(routes: list[tuple[str, str]]) -> None:
    """The walk sees all five routes that exist, so that a new one can't slip past it unseen."""
    assert sorted(routes) == [
        ("POST", "/api/auth/login"),
        ("POST", "/api/auth/logout"),
        ("POST", "/api/auth/refresh"),
        ("POST", "/api/auth/ws-token"),
        ("POST", "/auth/ws-token"),
    ]


async def test_every_route_refuses_what_it_can_not_prove(relay: Relay, routes: list[tuple[str, str]]) -> None:
    """403 csrf_failed for each forgery on each route; no cookie set, none cleared, nobody logged out."""
    session = relay.session(sub="forged", sid="forged")
    body = b'{"email":"demo@example.com","password":"demo"}'
    for _, path in routes:
        sent = body if path.endswith("login") else b""
        cookie = [("Cookie", f"access-token={session}"), ("Content-Type", "application/json")]
        attempts = {name: [*cookie, *fields] for name, fields in abuses(relay).items()}
        attempts |= {name: [*cookie[1:], *fields] for name, fields in without_cookie(relay).items()}
        for name, fields in attempts.items():
            answer = await post(relay, path, fields, body=sent)
            assert (answer.status, answer.code) == (403, "csrf_failed"), (path, name)
            assert answer.all("set-cookie") == [], (path, name)
    own = [("Cookie", f"access-token={session}"), ("Origin", relay.url)]
    assert (await post(relay, "/auth/ws-token", own)).status == 200, "a forged log-out ended the session"


async def test_no_preflight_is_answered(relay: Relay, routes: list[tuple[str, str]]) -> None:
    """OPTIONS gets no CORS header, so that no page elsewhere may send X-Relay-CSRF or JSON."""
    for _, path in routes:
        fields = [
            ("Host", "127.0.0.1"),
            ("Origin", "https://evil.example"),
            ("Access-Control-Request-Method", "POST"),
        ]
        answer = await exchange(relay.ports[0], head("OPTIONS", path, fields))
        assert answer.status == 405
        assert not [name for name, _ in answer.fields if name.startswith("access-control")]


async def test_a_form_is_refused(relay: Relay) -> None:
    """Bodies that another site's form can make are refused, also with an Origin that is right."""
    kinds = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""]
    for path in ("/auth/ws-token", "/api/auth/login"):
        for kind in kinds:
            fields = [
                ("Cookie", f"access-token={relay.session()}"),
                ("Origin", relay.url),
                ("Content-Type", kind),
            ]
            answer = await post(relay, path, fields, body=b'{"email":"demo@example.com","password":"demo"}')
            assert (answer.status, answer.code) == (400, "invalid_request"), (path, kind)


async def test_the_applications_own_requests_are_accepted(relay: Relay) -> None:
    """An own Origin, a same-origin fetch, the custom header, and a Bearer token alone each suffice."""
    cookie = ("Cookie", f"access-token={relay.session()}")
    for fields in (
        [cookie, ("Origin", relay.url)],
        [cookie, ("Origin", relay.url), ("Sec-Fetch-Site", "cross-site")],
        [cookie, ("Sec-Fetch-Site", "same-origin")],
        [cookie, ("X-Relay-CSRF", "1")],
        [("Authorization", f"Bearer {relay.session()}")],
        [("Authorization", f"bearer {relay.session()}")],
    ):
        assert (await post(relay, "/auth/ws-token", fields)).status == 200, fields
