"""The middleware before a real service on uvicorn: who gets through, and what those get who don't."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from relay.verify import ConfigurationError, Reason, ScopedTokenMiddleware, UnavailableError
from tests.support.protected_service import Service, serving
from tests.support.raw_http import Answer
from tests.support.service_tokens import ISSUER, bad_tokens, token, verifier

BODY = {"code": "invalid_token", "message": "The token was refused. Request a new one.", "retryable": False}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with one protected path."""
    async with serving(verifier()) as running:
        yield running


def assert_refused(answer: Answer) -> None:
    """Check that an answer is the one that every bad token gets."""
    assert (answer.status, answer.json) == (401, BODY)
    assert answer.all("www-authenticate") == ['Bearer realm="scoped token", error="invalid_token"']
    assert answer.all("cache-control") == ["no-store"]


# --- through


async def test_a_good_token_gets_through_once(service: Service) -> None:
    """The application learns whose it is; the second call is refused and never reaches it."""
    text = token(sub="alice")
    answer = await service.call(text)
    assert (answer.status, answer.json) == (200, {"user": "alice", "same": True})
    assert_refused(await service.call(text))
    assert service.calls == ["/v1/export"]


async def test_of_fifty_calls_at_once_one_gets_through(service: Service) -> None:
    """However they are spread over connections."""
    text = token()
    answers = await asyncio.gather(*(service.call(text) for _ in range(50)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 49
    assert len(service.calls) == 1


@pytest.mark.parametrize("value", ["bearer {}", "BEARER {}", "Bearer   {}", " Bearer {} "])
async def test_other_spellings_of_the_header(service: Service, value: str) -> None:
    """RFC 9110: the scheme's case does not matter, nor do spaces."""
    answer = await service.call(None, ("authorization", value.format(token())))
    assert answer.status == 200


async def test_a_page_that_calls_its_own_origin(service: Service) -> None:
    """Its GET has no Origin: the browser's own header says that it is the same, and the URL which that is."""
    own = "https://reports.example.com"
    same, cross = ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "same-site")
    assert (await service.call(token(origin=own), same, origin=None, method="GET")).status == 200
    for fields in ((cross,), (same, same), ()):
        assert (await service.call(token(origin=own), *fields, origin=None)).status == 403
    assert (await service.call(token(origin=own), same, origin=ISSUER)).status == 403


async def test_other_paths_are_not_concerned(service: Service) -> None:
    """They need no token, use none up, and get no claims; what is below a protected path is protected."""
    text = token()
    assert (await service.call(text, path="/v1/exports")).json == {"user": None, "same": True}
    assert (await service.call("garbage", path="/v1/exports")).status == 200
    for path in ("/v1/export", "/v1/export/", "/v1/export/all", "/v1/%65xport", "/mounted/v1/export"):
        assert (await service.call(None, path=path)).status == 401, path
    assert (await service.call(text, path="/v1/export/all")).status == 200
    assert (await service.call(token(), path="/mounted/v1/export")).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_every_method_is_protected(service: Service, method: str) -> None:
    """Those that the application does not have as well; a preflight is for a CORS middleware before this one."""
    assert (await service.call(None, method=method)).status == 401
    assert service.calls == []


async def test_without_paths_everything_is_protected() -> None:
    """What nobody thought of as well."""
    async with serving(verifier(), paths=None) as service:
        for path in ("/v1/exports", "/", "/nowhere", "//v1/export"):
            assert (await service.call(None, path=path)).status == 401, path
        assert (await service.call(token(), path="/v1/exports")).status == 200


async def test_the_service_starts_and_ends_as_without_it() -> None:
    """Lifespan messages pass through."""
    async with serving(verifier(), paths=None, lifespan="on") as service:
        assert service.lived == "started"
    assert service.lived == "ended"


# --- refused


@pytest.mark.parametrize("name", bad_tokens())
async def test_every_bad_token_gets_the_same_answer(service: Service, name: str) -> None:
    """One body and one header, whatever was wrong, and no call reaches the application."""
    assert_refused(await service.call(bad_tokens()[name]))
    assert service.calls == []


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Basic eA==", "Token {}", "{}", "Bearer {} x", "Bearer {},", "Bearer {}\xe9"],
)
async def test_a_header_that_is_not_bearer_is_refused(service: Service, value: str) -> None:
    """Another scheme, no token, more than a token: refused, and the token in it is not used up."""
    text = token()
    assert_refused(await service.call(None, ("Authorization", value.format(text))))
    assert (await service.call(text)).status == 200


async def test_two_tokens_are_none(service: Service) -> None:
    """Two headers, even with the same token, and neither is used up."""
    text = token()
    assert_refused(await service.call(text, ("Authorization", f"Bearer {text}")))
    assert (await service.call(text)).status == 200


async def test_a_token_in_another_place_is_not_looked_for(service: Service) -> None:
    """Not in the query, a cookie, a form or a subprotocol; who brings none is told of no error (RFC 6750 §3.1)."""
    text = token()
    fields = [("Cookie", f"token={text}"), ("X-Token", text), ("Sec-WebSocket-Protocol", f"bearer.{text}")]
    answer = await service.call(None, *fields, path=f"/v1/export?token={text}&access_token={text}")
    assert (answer.status, answer.json) == (401, BODY)
    assert answer.all("www-authenticate") == ['Bearer realm="scoped token"']
    assert (await service.call(text)).status == 200


async def test_a_wrong_origin_is_403_and_costs_no_token(service: Service) -> None:
    """Another page, "null", two origins, none at all: forbidden, and the token is still good."""
    text = token()
    for origin in ("https://evil.example", "null", None):
        answer = await service.call(text, origin=origin)
        assert (answer.status, answer.code) == (403, "forbidden")
    assert (await service.call(text, ("Origin", ISSUER))).status == 403
    assert service.calls == []
    assert (await service.call(text)).status == 200


async def test_a_store_that_is_away_is_503() -> None:
    """Nobody gets in, and the caller may try again."""

    class Broken:
        async def claim(self, jti: str, *, expires_at: float) -> bool:
            raise UnavailableError(Reason.STATE_UNAVAILABLE, "The disk is full.")

    async with serving(verifier(single_use=Broken())) as service:
        answer = await service.call(token())
        assert (answer.status, answer.code) == (503, "unavailable")
        assert answer.all("retry-after") == ["2"]
        assert b"disk" not in answer.body
        assert service.calls == []


async def test_a_store_that_breaks_lets_nobody_in() -> None:
    """A fault that no store should have is the server's 500, and not a way in."""

    class Faulty:
        async def claim(self, jti: str, *, expires_at: float) -> bool:
            raise RuntimeError("a bug")

    async with serving(verifier(single_use=Faulty())) as service:
        assert (await service.call(token())).status == 500
        assert service.calls == []


# --- WebSockets


async def test_a_websocket_needs_a_token_too(service: Service) -> None:
    """In the handshake's Authorization; what is refused is answered before the connection is one."""
    url, text = f"ws://127.0.0.1:{service.port}/v1/export", token(sub="bob")

    def connecting(**headers: str) -> Any:
        return connect(url, additional_headers=headers, origin=ISSUER, proxy=None)  # type: ignore[arg-type]  # a NewType

    async with connecting(Authorization=f"Bearer {text}") as websocket:
        assert json.loads(await websocket.recv()) == {"user": "bob"}
    for headers in ({"Authorization": f"Bearer {text}"}, {}):
        with pytest.raises(InvalidStatus) as refused:
            async with connecting(**headers):
                pytest.fail("it is open")
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body) == BODY


async def test_a_websocket_where_the_server_can_t_answer() -> None:
    """Without ASGI's extension for it the connection is closed before it is accepted."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(*_: Any) -> None:
        pytest.fail("the application was called")

    guard = ScopedTokenMiddleware(app, verifier())
    await guard({"type": "websocket", "path": "/x", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 3000, "reason": "invalid_token"}]


# --- secrecy


async def test_no_log_has_a_token(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, taken, refused and replayed: the reason is there, and no part of any token."""
    caplog.set_level(logging.DEBUG)
    texts = [token(), *bad_tokens().values()]
    for text in texts:
        await service.call(text)
        await service.call(text, origin="https://evil.example")
        await service.call(None, ("Authorization", f"Basic {text}"))
    await service.call(texts[0])
    assert {"token_replayed", "token_origin", "token_malformed"} <= {
        record.getMessage().rpartition(" ")[2] for record in caplog.records if record.name == "relay.verify"
    }
    parts = {part for text in texts for part in text.split(".") if len(part) > 8}
    assert not [part for part in parts if part in caplog.text]


# --- arguments


@pytest.mark.parametrize("paths", [(), "/v1/export", ("v1/export",), ("",), ("/a", "b")])
def test_paths_that_protect_nothing(paths: Any) -> None:
    """A mistake that would leave the service open is one sentence at its start."""

    async def app(*_: Any) -> None:
        pytest.fail("the application was called")

    with pytest.raises(ConfigurationError, match="paths must be a list of paths"):
        ScopedTokenMiddleware(app, verifier(), paths=paths)
