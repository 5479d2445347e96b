"""GET /api/auth/me: the user as the backend describes it, and never a token of the session."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.backends import End, KeepAliveBackend, ScriptedBackend, http_answer, kept_answer
from tests.support.raw_http import Answer, exchange, head
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet

USER = {"id": 7, "name": "A", "roles": ["trader"]}


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    """A backend that answers as it is told to."""
    return ScriptedBackend()


@pytest.fixture(scope="module")
def relay(backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that asks that backend."""
    bff = f'backend = "{backend.origin}"\nme_path = "/api/v1/whoami"'
    with running(tmp_path_factory.mktemp("me"), bff=bff) as relay:
        yield relay
    assert_quiet(relay)


async def me(relay: Relay, session: str | None = None, *fields: tuple[str, str]) -> Answer:
    """Ask who the user is, as a page does, with a session's cookie and a refresh cookie."""
    cookie = ("Cookie", f"access-token={session or relay.session()}; refresh-token=the-refresh-token")
    request = head("GET", "/api/auth/me", [("Host", "x"), cookie, *fields])
    return await exchange(relay.ports[0], request)


@pytest.mark.parametrize("body", [{"user": USER}, USER, USER | {"user": "A"}, {"user": USER, "exp": 1}])
async def test_the_answer_is_the_user(relay: Relay, backend: ScriptedBackend, body: dict[str, Any]) -> None:
    """It is the backend's member `user`, or its whole object. Nobody may cache it."""
    session = relay.session()
    async with backend.answering(http_answer(200, body, "Set-Cookie: a=b", "X-Secret: 1")):
        answer = await me(relay, session, ("User-Agent", "Browser"), ("X-Forwarded-For", "203.0.113.9"))
    user = body["user"] if isinstance(body.get("user"), dict) else body
    assert (answer.status, answer.json["user"]) == (200, user)
    assert answer.all("cache-control") == ["private, no-store"]
    assert answer.all("set-cookie") == answer.all("x-secret") == []
    [request] = backend.requests
    text = request.decode().lower()
    assert text.startswith("get /api/v1/whoami http/1.1\r\n")
    assert f"authorization: bearer {session.lower()}\r\n" in text
    assert "x-forwarded-for: 127.0.0.1\r\n" in text
    assert "user-agent: browser\r\n" in text
    assert "cookie" not in text
    assert "203.0.113.9" not in text


async def test_no_token_is_in_the_answer(relay: Relay, backend: ScriptedBackend) -> None:
    """Neither the access nor the refresh token, as a value, in a text or as a name."""
    session = relay.session()
    user = {"name": "A", "token": session, "links": [f"/x?t={session}", "/y"], "the-refresh-token": 1}
    async with backend.answering(http_answer(200, {"user": user})):
        answer = await me(relay, session)
    assert answer.json["user"] == {"name": "A", "links": ["/y"]}


@pytest.mark.parametrize("status", [204, 302, 303, 307, 401, 403, 404, 410])
async def test_a_session_that_the_backend_does_not_know(
    relay: Relay, backend: ScriptedBackend, status: int
) -> None:
    """It is 401, and both cookies stay: the backend may know it again, and a refresh may help."""
    async with backend.answering(http_answer(status, b"", "Location: /login")):
        answer = await me(relay)
    assert (answer.status, answer.code, answer.all("set-cookie")) == (401, "invalid_session", [])
    reason = "session_invalid" if status == 403 else "session_expired"
    record = await relay.audited("proxy.denied", reason=reason)
    assert (record["url"]["path"], record["user"]) == ("/api/auth/me", {"id": "user-1"})


@pytest.mark.parametrize(
    ("sent", "status", "wait"),
    [
        (http_answer(200, b"<html>"), 502, None),
        (http_answer(200, [USER]), 502, None),
        (http_answer(200, b'{"a":' * 900 + b"1" + b"}" * 900), 502, None),
        (http_answer(200, {"user": "x" * 70_000}), 502, None),
        (http_answer(405, {}), 502, None),
        (http_answer(500, {}), 503, None),
        (http_answer(503, {}, "Retry-After: 300"), 503, "300"),
        (http_answer(429, {}, "Retry-After: 30"), 429, "30"),
        (b"", 503, None),
    ],
)
async def test_an_answer_that_says_nothing_of_the_user(
    relay: Relay, backend: ScriptedBackend, sent: bytes, status: int, wait: str | None
) -> None:
    """It is 502 if it comes again each time, and 503 if it may pass; the cookies stay."""
    async with backend.answering(sent):
        answer = await me(relay)
    assert (answer.status, answer.all("set-cookie")) == (status, [])
    assert answer.json["retryable"] is (status != 502)
    if wait is not None:
        assert answer.all("retry-after") == [wait]
    assert "127.0.0.1" not in answer.body.decode()


async def test_without_a_good_session_the_backend_is_not_asked(
    relay: Relay, backend: ScriptedBackend
) -> None:
    """No cookie is 401 and not recorded. A session that can never be good again loses its access cookie."""
    before = len(relay.audit())
    async with backend.answering(http_answer(200, USER)):
        nobody = await exchange(relay.ports[0], head("GET", "/api/auth/me", [("Host", "x")]))
        assert (nobody.status, nobody.code, nobody.all("set-cookie")) == (401, "invalid_session", [])
        cookie = ("Cookie", f"access-token={relay.session(iat=1, exp=2)}")
        expired = await exchange(relay.ports[0], head("GET", "/api/auth/me", [("Host", "x"), cookie]))
        assert (expired.status, [line.partition("=")[0] for line in expired.all("set-cookie")]) == (
            401,
            ["access-token"],
        )
        logged_out = relay.session()
        assert (await relay.logout(logged_out)).status_code == 204
        assert (await me(relay, logged_out)).status == 401
    assert backend.requests == []
    await relay.audited("proxy.denied", reason="session_revoked")
    assert not [
        record for record in relay.audit()[before:] if record["event"].get("reason") == "session_missing"
    ]


async def test_it_is_asked_again_if_a_kept_connection_was_closed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A page gets its user, although the backend closed the idle connection at that moment."""
    script: list[bytes | End] = [kept_answer(200, USER), End(), kept_answer(200, USER)]
    async with KeepAliveBackend(*script).running() as backend:
        with running(tmp_path_factory.mktemp("kept"), bff=f'backend = "{backend.origin}"') as relay:
            assert [(await me(relay)).status for _ in range(2)] == [200, 200]
        assert [number for number, _ in backend.requests] == [1, 1, 2]


async def test_only_a_get_is_answered(relay: Relay) -> None:
    """Other methods are 405."""
    answer = await exchange(
        relay.ports[0], head("POST", "/api/auth/me", [("Host", "x"), ("Content-Length", "0")])
    )
    assert answer.status == 405


async def test_a_forged_session_is_recorded_as_a_claim(relay: Relay) -> None:
    """Nothing proves the user that it names, so no verified field has it."""
    head_, body, _ = relay.session(sub="mallory").split(".")
    _, _, signature = relay.session().split(".")
    assert (await me(relay, f"{head_}.{body}.{signature}")).status == 401
    record = await relay.recorded(lambda one: one["relay"].get("claimed") == {"user": "mallory"})
    assert record["event"]["action"] == "proxy.denied"
    assert "user" not in record
