"""A backend that hangs, closes, or answers nonsense: each route that calls it has a clear error of its own."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable

import pytest

from tests.support.backends import http_answer
from tests.support.proxied_backend import Conversation, Handler, ProxiedBackend
from tests.support.raw_http import Answer, exchange, head
from tests.support.relay_process import Relay

HTML = "Content-Type: text/html"
LARGE = 30_000_000
ANSWERS: dict[str, bytes] = {
    "html": http_answer(200, b"<html>secret.internal</html>", HTML),
    "500": http_answer(500, b"<html>secret.internal</html>", HTML),
    "30 MB": http_answer(200, b"[" + b" " * LARGE + b"]", "Content-Type: application/json"),
    "closes": b"",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    "garbage": b"\x00secret.internal\r\n\r\n",
}
Outcome = tuple[int, str] | None
UNAVAILABLE: Outcome = (503, "unavailable")
FAULT: Outcome = (502, "bad_gateway")
SLOW: Outcome = (504, "backend_timeout")
PASSED_ON: Outcome = None
ASKED: dict[str, Outcome] = {
    **dict.fromkeys(["hangs", "500", "closes", "cut off", "garbage"], UNAVAILABLE),
    **dict.fromkeys(["html", "30 MB"], FAULT),
}
EXPECTED: dict[str, dict[str, Outcome]] = {
    "login": ASKED,
    "refresh": ASKED,
    "me": ASKED,
    # of any answer in HTTP the status and the body are the page's business
    "proxy": {
        "hangs": SLOW,
        **dict.fromkeys(["closes", "cut off", "garbage"], FAULT),
        **dict.fromkeys(["html", "500", "30 MB"], PASSED_ON),
    },
}


async def send(relay: Relay, route: str) -> Answer:
    """Send the request of one route, with cookies of its own."""
    method, path, body = {
        "login": ("POST", "/api/auth/login", json.dumps({"email": secrets.token_hex(8), "password": "p"})),
        "refresh": ("POST", "/api/auth/refresh", ""),
        "me": ("GET", "/api/auth/me", ""),
        "proxy": ("GET", "/api/proxy/users", ""),
    }[route]
    fields = [("Host", "127.0.0.1"), ("Origin", relay.url), ("Content-Length", str(len(body)))]
    fields.append(("Cookie", f"access-token={relay.session()}; refresh-token={secrets.token_hex(16)}"))
    if body:
        fields.append(("Content-Type", "application/json"))
    return await exchange(relay.ports[0], head(method, path, fields) + body.encode())


@pytest.mark.parametrize("how", ["hangs", *ANSWERS])
async def test_a_broken_backend_is_a_clear_error(relay: Relay, backend: ProxiedBackend, how: str) -> None:
    """Whether to try again is in it; a host, a path or a word of the backend is not. Nobody is logged out."""

    def answers(data: bytes) -> Handler:
        async def handler(conversation: Conversation) -> None:
            await conversation.request()
            await conversation.write(data)

        return handler

    async def hangs(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.gone()

    handler: Callable[[Conversation], Awaitable[None]] = hangs if how == "hangs" else answers(ANSWERS[how])
    async with backend.serving(handler), asyncio.timeout(60):
        found = await asyncio.gather(*(send(relay, route) for route in EXPECTED))
    for route, answer in zip(EXPECTED, found, strict=True):
        expected = EXPECTED[route][how]
        if expected is PASSED_ON:
            assert (answer.status, len(answer.body)) in ((200, LARGE + 2), (200, 28), (500, 28)), route
            continue
        assert (answer.status, answer.code) == expected, route
        assert answer.json == {
            "code": answer.code,
            "message": answer.json["message"],
            "retryable": answer.status == 503,
        }, route
        assert bool(answer.all("retry-after")) == (answer.status == 503)
        assert answer.all("set-cookie") == []
        assert answer.all("cache-control") == ["private, no-store"]
        seen = str(answer.fields).encode() + answer.body
        assert not [
            word for word in (b"127.0.0.1", b"html", b"secret", str(backend.port).encode()) if word in seen
        ]
