"""What goes up to the backend, over sockets: paths, headers and the framing of bodies."""

import asyncio
import itertools

import pytest

from tests.support.proxied_backend import Conversation, ProxiedBackend, call, ok, page
from tests.support.raw_http import Answer, exchange, head
from tests.support.relay_process import Relay

BROKEN = [
    "%2e%2e/x",
    "..%2fx",
    "..;/x",
    "%2f",
    "x%5cy",
    "x//y",
    "%252e%252e",
    "x%00",
    "./x",
    "../auth/login",
    "%c0%ae",
]


async def send_target(relay: Relay, target: str, *fields: tuple[str, str]) -> Answer:
    """GET a request target as it is."""
    return await exchange(relay.ports[0], head("GET", target, [*page(relay), *fields]))


async def test_row_8_a_broken_path_is_400_and_never_sent(relay: Relay, backend: ProxiedBackend) -> None:
    """Below a route or not. The record has the reason, and nothing of the path."""
    async with backend.answering(ok()):
        for path in BROKEN:
            assert (await send_target(relay, f"/api/proxy/users/{path}?secret=1")).status == 400, path
        assert (await send_target(relay, "/api/proxy/%2e%2e%2fauth")).status == 400
    assert backend.requests == []
    record = await relay.audited("proxy.denied", reason="path_refused")
    assert "secret" not in str(record)


async def test_row_9_the_target_goes_on_byte_for_byte(relay: Relay, backend: ProxiedBackend) -> None:
    """Neither the order of the parameters nor an escape changes."""
    targets = [
        "?b=2&a=1&b=3",
        "?flag",
        "?a+b=c%20d",
        "?x=%E9%FF",
        "?",
        "/%C3%A9%20x",
        "/a%3Ab?u=http://x/../y",
        "/@me/(1)",
    ]
    async with backend.answering(ok()):
        for target in targets:
            assert (await send_target(relay, f"/api/proxy/users{target}")).status == 200, target
    assert [one.line for one in backend.requests] == [f"GET /users{target} HTTP/1.1" for target in targets]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/%70roxy/users", 404),
        ("http://127.0.0.1/api/proxy/users", 400),
        ("/api/proxy/", 404),
        ("/api/proxy", 404),
        ("/api/proxy/other", 404),
        ("/api/proxy/Users", 404),
        ("/api/proxy/auth/login", 404),
        ("/api/proxy/AUTH/me", 404),
    ],
)
async def test_other_spellings_of_the_route_reach_nothing(
    relay: Relay, backend: ProxiedBackend, target: str, status: int
) -> None:
    """The router's decoded path is not what counts."""
    async with backend.answering(ok()):
        assert (await send_target(relay, target)).status == status
    assert backend.requests == []


async def test_row_22_an_upgrade_is_refused(relay: Relay, backend: ProxiedBackend) -> None:
    """WebSocket, HTTP/2 in clear, and anything else: the listener would hand it on as a plain request."""
    async with backend.answering(ok()):
        for protocol in ("websocket", "h2c", "TLS/1.0", "x"):
            answer = await send_target(
                relay, "/api/proxy/users", ("Upgrade", protocol), ("Connection", "Upgrade")
            )
            assert answer.status == 400
    assert backend.requests == []


async def test_row_10_and_15_what_the_browser_sends_about_itself_does_not_arrive(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """Authorization is the relay's, X-Forwarded-For has the client's address alone, and lists decide about the rest."""
    session = relay.session()
    async with backend.answering(ok()):
        answer = await call(
            relay,
            "/orders",
            ("Authorization", "Bearer evil"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-User-Id", "admin"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("TE", "trailers"),
            ("Connection", "x-tenant, keep-alive"),
            ("Keep-Alive", "timeout=5"),
            ("X-Tenant", "t"),
            ("Accept", "text/csv"),
            ("Idempotency-Key", "i"),
            ("traceparent", "00-1"),
            ("Content-Type", "text/plain"),
            method="POST",
            body=b"x",
            session=session,
        )
    assert answer.status == 200
    seen = backend.last
    assert seen.all("authorization") == [f"Bearer {session}"]
    assert seen.all("x-forwarded-for") == ["127.0.0.1"]
    assert seen.names == {
        *("host", "authorization", "accept-encoding", "x-forwarded-for", "content-length"),
        *("accept", "idempotency-key", "traceparent", "content-type"),
    }


async def test_row_15_a_name_with_an_underscore_is_refused(relay: Relay, backend: ProxiedBackend) -> None:
    """`X_Forwarded_For` is X-Forwarded-For for many backends."""
    async with backend.answering(ok()):
        assert (await call(relay, "/users", ("X_Forwarded_For", "6.6.6.6"))).status == 400
    assert backend.requests == []


async def test_row_14_no_cookie_goes_up_or_down_but_the_named_ones(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """The session's cookies stay here; the backend can't set one of them."""
    answer_cookies = (
        "Set-Cookie: theme=light; Path=/",
        "Set-Cookie: access-token=evil",
        "Set-Cookie: other=1",
    )
    async with backend.answering(ok(b"{}", *answer_cookies)):
        answer = await call(relay, "/users", ("Cookie", "theme=dark; other=1"))
    assert backend.last.all("cookie") == ["theme=dark"]
    assert answer.all("set-cookie") == ["theme=light; Path=/"]


async def test_row_23_options_is_answered_here(relay: Relay, backend: ProxiedBackend) -> None:
    """A preflight of another site gets the methods, and no permission."""
    async with backend.answering(
        ok(b"{}", "Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true")
    ):
        preflight = await call(relay, "/orders", ("Origin", "https://evil.example"), method="OPTIONS")
        assert backend.requests == []
        answer = await call(relay, "/orders")
    assert preflight.status == 204
    assert preflight.all("allow") == ["DELETE, GET, HEAD, PATCH, POST, PUT, OPTIONS"]
    assert not [name for name, _ in (*preflight.fields, *answer.fields) if name.startswith("access-control")]


async def test_a_method_that_the_route_does_not_have_is_405(relay: Relay, backend: ProxiedBackend) -> None:
    """With the methods that it has."""
    async with backend.answering(ok()):
        answer = await call(relay, "/users", method="DELETE")
    assert (answer.status, answer.all("allow"), backend.requests) == (405, ["GET, HEAD, OPTIONS"], [])


async def test_another_site_can_not_write(relay: Relay, backend: ProxiedBackend) -> None:
    """Unsafe methods have the issuer's check; a read with the cookie needs none."""
    foreign = [(name, value) for name, value in page(relay) if name != "Origin"]
    async with backend.answering(ok()):
        for proof, status in (
            (("Origin", "https://evil.example"), 403),
            (("X", "1"), 403),
            (("X-Relay-CSRF", "1"), 200),
        ):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                data = head(method, "/api/proxy/orders", [*foreign, proof])
                assert (await exchange(relay.ports[0], data)).status == status, (proof, method)
        assert (await exchange(relay.ports[0], head("GET", "/api/proxy/orders", foreign))).status == 200
    await relay.audited("proxy.denied", reason="csrf_failed")


@pytest.mark.parametrize(
    ("claims", "reason"), [({"exp": 1}, "session_expired"), ({"token_use": "refresh"}, "session_invalid")]
)
async def test_a_bad_session_is_401(
    relay: Relay, backend: ProxiedBackend, claims: dict[str, object], reason: str
) -> None:
    """In the relay's own form, before the backend is asked."""
    async with backend.answering(ok()):
        cookie = (
            "Cookie",
            f"access-token={relay.session(**claims)}",
        )  # with a refresh cookie it would be renewed
        fields = [("Host", "127.0.0.1"), ("Origin", relay.url), cookie]
        answer = await exchange(relay.ports[0], head("GET", "/api/proxy/users", fields))
        assert (answer.status, answer.code) == (401, "invalid_session")
        bearer = await exchange(
            relay.ports[0],
            head("GET", "/api/proxy/users", [("Host", "x"), ("Authorization", f"Bearer {relay.session()}")]),
        )
        assert bearer.status == 401
    assert backend.requests == []
    await relay.audited("proxy.denied", reason=reason)


ENCODINGS = ["gzip", "identity", "chunked, chunked", "gzip, chunked", "chunked, gzip", "xchunked"]
ENCODINGS += ["chunkedx", "chunked;q=1", "\x0bchunked", "chun ked", '"chunked"', "chunked,", ",chunked"]
ENCODINGS += ["chunked\x00", "cow", "deflate", "trailers", "br"]
LENGTHS = [
    "+5",
    "-5",
    "0x5",
    "5 5",
    "5,5",
    "5;",
    "1e1",
    "5.0",
    "\xb2",
    "9" * 20,
    "5 ,",
    "five",
    "\x0b5",
    "0b1",
]
GOOD_ENCODINGS = ["chunked", "Chunked", "CHUNKED", " chunked ", "\tchunked"]
SMUGGLED: list[list[tuple[str, str]]] = [
    *([("Transfer-Encoding", one)] for one in ENCODINGS),
    *([("Content-Length", one)] for one in LENGTHS),
    *(
        [("Transfer-Encoding", one), ("Content-Length", two)]
        for one, two in itertools.product([*GOOD_ENCODINGS, *ENCODINGS[:6]], ["5", "0"])
    ),
    *([("Content-Length", "5"), ("Transfer-Encoding", one)] for one in [*GOOD_ENCODINGS, *ENCODINGS[:6]]),
    *(
        [("Content-Length", one), ("Content-Length", two)]
        for one, two in itertools.product(["5", "0", "6"], repeat=2)
    ),
    *(
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", one)]
        for one in [*GOOD_ENCODINGS, *ENCODINGS[:6]]
    ),
    *([("Transfer-Encoding", one), ("Transfer-Encoding", "chunked")] for one in ENCODINGS[:8]),
    *(
        [(f"Transfer-Encoding{end}", "chunked"), ("Content-Length", "5")]
        for end in (" ", "\t", "\x0b", "\x00")
    ),
    *([(f"{start}Content-Length", "5")] for start in ("\x00", "\x0b", "(")),
]


async def everything(port: int, data: bytes) -> bytes:
    """Send bytes and read until the relay closes the connection."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()


async def test_row_11_a_body_without_a_certain_end_is_400_and_the_last(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """Over a hundred spellings: one answer, 400, and nothing of what follows is taken for a request."""
    assert len(SMUGGLED) >= 100
    behind = b"0\r\n\r\n" + head("GET", "/api/proxy/users/smuggled", page(relay))
    async with backend.answering(ok()):
        for fields in SMUGGLED:
            data = head("POST", "/api/proxy/orders", [*page(relay), *fields]) + behind
            got = await everything(relay.ports[0], data)
            assert got.startswith(b"HTTP/1.1 400 "), fields
            assert got.count(b"HTTP/1.1 ") == 1, fields
    assert backend.requests == []


async def test_row_11_a_body_of_any_method_goes_on_whole(relay: Relay, backend: ProxiedBackend) -> None:
    """With a length or chunked, and also with GET and DELETE."""
    body = bytes(range(256)) * 40
    chunked = (
        b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]))
        + b"0\r\nX-T: 1\r\n\r\n"
    )
    async with backend.answering(ok()):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            assert (await call(relay, "/orders", method=method, body=body)).status == 200
            assert (backend.last.line.split()[0], backend.last.body) == (method, body)
            for spelling in GOOD_ENCODINGS[:3]:
                answer = await call(
                    relay, "/orders", ("Transfer-Encoding", spelling), method=method, body=chunked
                )
                assert answer.status == 200
                assert (backend.last.line.split()[0], backend.last.body) == (method, body)
                assert "x-t" not in backend.last.names
        assert (await call(relay, "/orders", method="POST", body=b"")).status == 200
        assert backend.last.all("content-length") == ["0"]


async def test_a_compressed_body_is_refused(relay: Relay, backend: ProxiedBackend) -> None:
    """Its Content-Encoding would not go on, so the backend would read something else."""
    async with backend.answering(ok()):
        answer = await call(relay, "/orders", ("Content-Encoding", "gzip"), method="POST", body=b"\x1f\x8b")
    assert (answer.status, backend.requests) == (415, [])


async def test_row_20_expect_is_answered_here(relay: Relay, backend: ProxiedBackend) -> None:
    """The client is told to go on, the backend never sees Expect; a refused request is not told to go on."""
    fields = [*page(relay), ("Expect", "100-continue"), ("Content-Length", "5")]
    async with backend.answering(ok()), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[0])
        writer.write(head("POST", "/api/proxy/orders", fields))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert "expect" not in backend.last.names
        refused = await exchange(relay.ports[0], head("POST", "/api/proxy/users", fields))
        assert refused.status == 405


async def test_calls_of_one_session_have_a_bound(relay: Relay, backend: ProxiedBackend) -> None:
    """One session can't use up the connections of all: the next call is 429, and another session goes on."""
    session, waiting = relay.session(), asyncio.Semaphore(0)

    async def hang(conversation: Conversation) -> None:
        await conversation.request()
        waiting.release()
        await conversation.gone()

    async with backend.serving(hang), asyncio.timeout(10):
        calls = [asyncio.create_task(call(relay, "/users", session=session)) for _ in range(3)]
        for _ in calls:
            await waiting.acquire()
        assert (await call(relay, "/users", session=session)).status == 429
        other = asyncio.create_task(call(relay, "/users"))
        await waiting.acquire()
        for one in (*calls, other):
            one.cancel()
    await relay.audited("proxy.denied", reason="calls_too_many")
