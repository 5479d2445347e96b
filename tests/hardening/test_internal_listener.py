"""The internal listener from a browser, under a strange name, or for what a publisher's key does not open."""

import pytest

from tests.support.raw_http import Answer, exchange, head
from tests.support.relay_process import PUBLISHER_KEY, Relay

KEY = ("Authorization", f"Bearer {PUBLISHER_KEY}")
TICK = b'{"channel":"prices.INTERNAL","data":1}'
HEALTH = [("GET", "/live"), ("GET", "/ready")]
ROUTES = [
    *HEALTH,
    ("POST", "/v1/publish"),
    ("POST", "/v1/publish/batch"),
    ("POST", "/v1/revocations"),
    ("POST", "/v1/channels/reset"),
    ("GET", "/v1/ingest"),
    ("GET", "/v1/subscribers"),
    ("GET", "/v1/publishers"),
    ("GET", "/v1/connections"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/audit/why"),
    ("GET", "/v1/audit/questions/refusals"),
    ("GET", "/v1/channels"),
    ("GET", "/v1/stats"),
    ("GET", "/metrics"),
    ("GET", "/ops"),
]


async def call(relay: Relay, method: str, path: str, *fields: tuple[str, str], body: bytes = b"") -> Answer:
    """Call the internal listener with exactly these headers, and the body's length."""
    length = [("Content-Length", str(len(body)))] if body else []
    return await exchange(relay.ports[2], head(method, path, [*fields, *length]) + body)


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["evil.example"],
        ["evil.example:{port}"],
        ["127.0.0.1.evil.example"],
        ["localhost.evil.example:{port}"],
        ["127.0.0.1, evil.example"],
        ["127.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "evil.example"],
        ["evil.example", "127.0.0.1"],
        ["0.0.0.0"],
        ["127.1"],
        ["2130706433"],
        ["user@127.0.0.1"],
        ["[::]"],
        ["::1"],
        [":{port}"],
    ],
)
async def test_an_unknown_host_is_misdirected(relay: Relay, hosts: list[str]) -> None:
    """A page can reach 127.0.0.1 by a name of its own (DNS rebinding). It is 421 on each route but health."""
    fields = [("Host", host.format(port=relay.ports[2])) for host in hosts]
    for method, path in ROUTES:
        if (method, path) in HEALTH:
            continue
        answer = await call(relay, method, path, *fields, KEY, body=TICK if method == "POST" else b"")
        assert answer.status in (400, 421), (method, path)  # 400: no valid HTTP to begin with
        assert answer.code in ("unknown_host", "invalid_request")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:{port}",
        "localhost:{port}",
        "LOCALHOST",
        "[::1]",
        "[::1]:{port}",
        "10.244.0.5:{port}",
        "[fd00:10:244::5]:{port}",
    ],
)
async def test_a_known_host_is_served(relay: Relay, host: str) -> None:
    """The names of listen.internal_hosts, with a port or without, in any case, and each IP address."""
    fields = ("Host", host.format(port=relay.ports[2]))
    assert (await call(relay, "GET", "/live", fields)).status == 200
    assert (await call(relay, "POST", "/v1/publish", fields, KEY, body=TICK)).status == 200


@pytest.mark.parametrize("host", ["relay.prod.svc:8002", "evil.example", "10.244.0.5:8002"])
async def test_health_is_answered_under_any_name(relay: Relay, host: str) -> None:
    """A probe names the pod as it likes, and a refusal would restart the pod. Other sites' pages are refused."""
    for method, path in HEALTH:
        assert (await call(relay, method, path, ("Host", host))).status == 200
        assert (await call(relay, method, path, ("Host", host), ("Host", host))).status in (400, 421)
        assert (
            await call(relay, method, path, ("Host", host), ("Sec-Fetch-Site", "cross-site"))
        ).status == 403


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_browsers_are_refused(relay: Relay, method: str, path: str) -> None:
    """A call with another page's Origin, or made by another site, is 403 on each route, with a right key too."""
    body = TICK if method == "POST" else b""
    for field in (
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", ""),
        ("Origin", f"http://127.0.0.1:{relay.ports[2]}"),  # not the Host that is called below
        ("Origin", "http://127.0.0.1.evil.example"),
        ("Origin", "http://127.0.0.1/"),
        ("Origin", "ftp://127.0.0.1"),
        ("Origin", relay.url),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ):
        answer = await call(relay, method, path, ("Host", "127.0.0.1"), field, KEY, body=body)
        assert (answer.status, answer.code) == (403, "forbidden"), field


async def test_the_ops_pages_own_calls_pass_the_door(relay: Relay) -> None:
    """An Origin that is the called host itself; with another site's mark beside it, or twice, it is refused."""
    port = relay.ports[2]
    for host in (f"127.0.0.1:{port}", "localhost", "[::1]:1"):
        own = ("Host", host), ("Origin", f"http://{host}")
        assert (await call(relay, "GET", "/live", *own)).status == 200
        assert (await call(relay, "GET", "/live", *own, ("Sec-Fetch-Site", "same-origin"))).status == 200
        assert (await call(relay, "GET", "/live", *own, ("Sec-Fetch-Site", "cross-site"))).status == 403
        assert (await call(relay, "GET", "/live", *own, own[1])).status == 403


async def test_health_needs_no_key_and_tells_nothing(relay: Relay) -> None:
    """/live and /ready answer a word, typed into a browser too."""
    for path in ("/live", "/ready"):
        answer = await call(relay, "GET", path, ("Host", "127.0.0.1"), ("Sec-Fetch-Site", "none"))
        assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_a_publishers_key_opens_publishing_alone(relay: Relay) -> None:
    """There is nothing else here, and the public routes are not here either."""
    for method, path in (
        ("GET", "/v1/publish"),
        ("GET", "/"),
        ("GET", "/v1/revocations"),
        ("POST", "/v1/revocations"),
        ("POST", "/auth/ws-token"),
        ("GET", "/.well-known/jwks.json"),
        ("POST", "/v1/publish/"),
        ("POST", "/v1//publish"),
        ("POST", "/V1/publish"),
    ):
        answer = await call(relay, method, path, ("Host", "127.0.0.1"), KEY)
        refused = (401,) if (method, path) == ("POST", "/v1/revocations") else (307, 404, 405)
        assert answer.status in refused, (method, path)


async def test_the_public_listener_has_no_internal_routes(relay: Relay) -> None:
    """Publishing and health are not reachable from outside."""
    for method, path in ROUTES:
        data = head(method, path, [("Host", "127.0.0.1"), KEY, ("Content-Length", "0")])
        assert (await exchange(relay.ports[0], data)).status == 404
