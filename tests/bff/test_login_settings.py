"""Log-in with settings for the backend: its names of members, its refusals, further fields, waits, addresses, ends."""

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.backends import ScriptedBackend, http_answer
from tests.support.raw_http import Answer, exchange, post
from tests.support.raw_http import head as request_head
from tests.support.relay_process import SECRET, Relay, make_relay, with_session
from tests.support.shared_relay import assert_quiet

SETTINGS = """
login_names = ["email", "username"]
login_fields = ["otp", "remember", "device"]
login_codes = ["mfa_required", "email_not_verified"]
login_messages = ["Enter the code of your authenticator."]
[bff.fields]
access_token = "data.access_token"
refresh_token = "data.refresh_token"
user = "data.user"
code = "error.code"
message = "error.message"
"""
PASSWORD = {"password": "demo"}


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    """A backend that answers as it is told to."""
    return ScriptedBackend()


@pytest.fixture(scope="module")
def relay(backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with other names than the default, behind a proxy, with three log-ins an hour for an account."""
    relay = make_relay(tmp_path_factory.mktemp("settings"), bff=f'backend = "{backend.origin}"\n{SETTINGS}')
    file = relay.folder / "relay.toml"
    text = file.read_text().replace("[public]\n", '[public]\ntrusted_proxies = ["127.0.0.2"]\n')
    limit = 'logins_per_account_and_address = "10000/minute"'
    assert limit in text
    file.write_text(text.replace(limit, 'logins_per_account_and_address = "3/hour"'))
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)


async def login(relay: Relay, body: dict[str, Any], *fields: tuple[str, str]) -> Answer:
    """Log in from the application's own page."""
    first = [("Origin", relay.url), ("Content-Type", "application/json")]
    return await post(relay, "/api/auth/login", [*first, *fields], body=json.dumps(body).encode())


def body_of(access: str, refresh: str = "refresh", **more: Any) -> dict[str, Any]:
    """Return what this backend answers to a good log-in."""
    return {"data": {"access_token": access, "refresh_token": refresh, "user": {"name": "A"}} | more}


def sent(backend: ScriptedBackend) -> tuple[str, Any]:
    """Return head and body of the one request that the backend got."""
    [request] = backend.requests
    head, body = request.decode("latin-1").split("\r\n\r\n")
    return head, json.loads(body)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 226])
async def test_any_success_with_tokens_is_a_log_in(
    relay: Relay, backend: ScriptedBackend, status: int
) -> None:
    """The members are where the settings say, and the tokens in it are the cookies."""
    session = relay.session()
    async with backend.answering(http_answer(status, body_of(session))):
        answer = await login(relay, PASSWORD | {"email": f"{status}@example.com"})
    assert (answer.status, answer.json) == (200, {"user": {"name": "A"}})
    assert [header.partition(";")[0] for header in answer.all("set-cookie")] == [
        f"access-token={session}",
        "refresh-token=refresh",
    ]


async def test_a_missing_member_is_named_by_its_setting(relay: Relay, backend: ScriptedBackend) -> None:
    """The relay's log has the path that was expected, and of the answer only usual names."""
    async with backend.answering(http_answer(200, {"accessToken": relay.session(), "s3cret-name": 1})):
        answer = await login(relay, PASSWORD | {"email": "missing@example.com"})
    assert (answer.status, answer.code) == (502, "bad_gateway")
    log = relay.log_path.read_text()
    expected = "JSON with data.access_token (a text), data.refresh_token (a text), data.user (an object)"
    assert expected in log
    assert "a JSON object with accessToken" in log
    assert "s3cret-name" not in log


async def test_a_backend_without_refresh_tokens_and_users(backend: ScriptedBackend, tmp_path: Path) -> None:
    """With both names empty there is one cookie, and an empty user."""
    names = 'backend = "{}"\n[bff.fields]\naccess_token = "token"\nrefresh_token = ""\nuser = ""'
    relay = make_relay(tmp_path, bff=names.format(backend.origin))
    relay.start()
    try:
        async with backend.answering(http_answer(200, {"token": relay.session(), "refreshToken": "r"})):
            answer = await login(relay, PASSWORD | {"email": "a@example.com"})
        assert (answer.status, answer.json) == (200, {"user": {}})
        assert [header.partition("=")[0] for header in answer.all("set-cookie")] == ["access-token"]
    finally:
        relay.stop()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_the_backends_wait_is_passed_on(relay: Relay, backend: ScriptedBackend, status: int) -> None:
    """Seconds or a date, an hour at most; without one, or with another text, the relay's own."""
    soon = formatdate(time.time() + 300, usegmt=True)
    waits = {
        "300": (300, 300),
        "1": (1, 1),
        "0": (1, 1),
        "3600": (3600, 3600),
        "86400": (3600, 3600),
        "9" * 400: (3600, 3600),
        soon: (290, 300),
        "Thu, 01 Jan 1970 00:00:00 GMT": (1, 1),
        "Fri, 31 Dec 9999 23:59:59 GMT": (3600, 3600),
        "-5": (1, 6),
        "soon": (1, 6),
        "\u0663": (1, 6),
    }
    for index, (value, (least, most)) in enumerate(waits.items()):
        async with backend.answering(http_answer(status, {}, f"Retry-After: {value}")):
            answer = await login(relay, PASSWORD | {"email": f"wait-{status}-{index}@example.com"})
        assert answer.status == (429 if status == 429 else 503)
        assert least <= int(answer.all("retry-after")[0]) <= most, value


async def test_what_the_backend_failed_does_not_use_up_the_limit(
    relay: Relay, backend: ScriptedBackend
) -> None:
    """After ten failures of the backend a user still has three log-ins; wrong passwords do use them up."""
    mine = PASSWORD | {"email": "patient@example.com"}
    for failure in (
        b"",
        http_answer(500, {}),
        http_answer(503, {}),
        http_answer(404, {}),
        http_answer(200, {}),
    ):
        for _ in range(2):
            async with backend.answering(failure):
                assert (await login(relay, mine)).status in (502, 503)
    async with backend.answering(http_answer(200, body_of(relay.session()))):
        assert (await login(relay, mine)).status == 200
    async with backend.answering(http_answer(401, {})):
        assert [(await login(relay, mine)).status for _ in range(3)] == [401, 401, 429]
        assert len(backend.requests) == 2


async def test_the_spellings_of_a_name_are_counted_as_one(relay: Relay, backend: ScriptedBackend) -> None:
    """Full-width letters, zero-width characters, letter case and the other member of names share one limit."""
    spellings = [
        {"email": "Bob@Example.com"},
        {"username": "b\u200bob\ufeff@example.com"},
        {"email": "\uff22\uff4f\uff42@example\u00ad.com "},
    ]
    async with backend.answering(http_answer(401, {})):
        assert [(await login(relay, PASSWORD | name)).status for name in spellings] == [401] * 3
        assert json.loads(backend.requests[-1].partition(b"\r\n\r\n")[2])["email"] == spellings[2]["email"]
        for name in ({"username": "BOB@EXAMPLE.COM"}, {"email": "bo\u2060b@example.com"}):
            assert (await login(relay, PASSWORD | name)).status == 429
        assert (await login(relay, PASSWORD | {"email": "bobb@example.com"})).status == 401


async def test_the_backend_learns_whose_log_in_it_is(relay: Relay, backend: ScriptedBackend) -> None:
    """The address that the relay believes and the browser's User-Agent; no header of the browser's own choice."""
    forged = [("X-Forwarded-For", "203.0.113.9"), ("X-Real-IP", "203.0.113.9"), ("X-User", "root")]
    browser = ("User-Agent", "Mozilla/5.0 (X11; caf\xe9)")
    async with backend.answering(http_answer(401, {})):
        await login(relay, PASSWORD | {"email": "direct@example.com"}, *forged, browser)
    head, _ = sent(backend)
    lines = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head.split("\r\n")[1:]}
    assert lines["x-forwarded-for"] == "127.0.0.1"
    assert lines["user-agent"] == browser[1]
    assert "203.0.113.9" not in head
    assert "root" not in head


async def test_behind_a_proxy_the_backend_gets_the_browsers_address(
    relay: Relay, backend: ScriptedBackend
) -> None:
    """It is the one that the trusted proxy names, and not what a client had put before it."""
    body = json.dumps(PASSWORD | {"email": "proxied@example.com"}).encode()
    fields = [
        ("Host", "x"),
        ("Origin", relay.url),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("X-Forwarded-For", "198.51.100.1, 203.0.113.9"),
    ]
    async with backend.answering(http_answer(401, {})):
        request = request_head("POST", "/api/auth/login", fields) + body
        assert (await exchange(relay.ports[0], request, source="127.0.0.2")).status == 401
    head, _ = sent(backend)
    assert "x-forwarded-for: 203.0.113.9\r\n" in head.lower() + "\r\n"
    assert "user-agent" not in head.lower()


REFUSALS: list[tuple[int, Any, int, str, str]] = [
    (401, {"code": "mfa_required", "message": "SECRET"}, 401, "mfa_required", "The log-in was refused."),
    (403, {"code": "email_not_verified"}, 403, "email_not_verified", "The log-in was refused."),
    (423, {"code": "mfa_required"}, 423, "mfa_required", "The log-in was refused."),
    (
        400,
        {"code": "mfa_required", "message": "Enter the code of your authenticator."},
        400,
        "mfa_required",
        "Enter the code of your authenticator.",
    ),
    (
        401,
        {"code": "SECRET", "message": "Enter the code of your authenticator."},
        401,
        "login_refused",
        "Enter the code of your authenticator.",
    ),
    (401, {"code": "SECRET", "message": "SECRET"}, 401, "invalid_credentials", "The name or the password is wrong."),
    (401, {"code": ["mfa_required"]}, 401, "invalid_credentials", "The name or the password is wrong."),
    (401, "mfa_required", 401, "invalid_credentials", "The name or the password is wrong."),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "expected", "code", "message"), REFUSALS)
async def test_named_codes_and_messages_are_passed_on(
    relay: Relay, backend: ScriptedBackend, status: int, error: Any, expected: int, code: str, message: str
) -> None:
    """With the backend's status, in the relay's own form; whatever the settings do not name is kept back."""
    said = {"error": error, "hint": "SECRET"}
    async with backend.answering(http_answer(status, said, "WWW-Authenticate: Basic realm=SECRET")):
        answer = await login(relay, PASSWORD | {"email": f"{status}{code}{message}@example.com"})
    assert answer.status == expected
    assert answer.json == {"code": code, "message": message, "retryable": False}
    assert "SECRET" not in str(answer)
    reason = "credentials_invalid" if code == "invalid_credentials" else "login_refused"
    record = await relay.audited("login.failed", reason=reason)
    assert record["http"]["response"]["status_code"] in (400, 401, 403, 423)


async def test_further_fields_are_passed_on(relay: Relay, backend: ScriptedBackend) -> None:
    """Those that the settings name, as they came; others are left out."""
    body = PASSWORD | {"username": "ann", "otp": "123456", "remember": True, "device": None, "admin": True}
    async with backend.answering(http_answer(401, {})):
        assert (await login(relay, body)).status == 401
    del body["admin"]
    assert sent(backend)[1] == body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (PASSWORD, 'Send {"email" or "username": …, "password": …}, both texts that are not empty.'),
        (PASSWORD | {"email": "a", "username": "b"}, 'Send {"email" or "username": …,'),
        (PASSWORD | {"email": "a", "username": ""}, 'Send {"email" or "username": …,'),
        ({"email": "a", "otp": "1"}, 'Send {"email" or "username": …,'),
        (PASSWORD | {"email": "a", "otp": {"$gt": ""}}, "otp must be a text, a number, true, false or null."),
        (
            PASSWORD | {"email": "a", "remember": [1]},
            "remember must be a text, a number, true, false or null.",
        ),
    ],
)
async def test_a_wrong_log_in_is_400(relay: Relay, body: dict[str, Any], message: str) -> None:
    """Two names in one log-in are refused too: a guess at one account would be counted for the other."""
    answer = await login(relay, body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.json["message"].startswith(message)


def ending(use: str, seconds: float | None) -> str:
    """Return a token of the backend that ends so many seconds from now."""
    now = int(time.time())
    claims = {"sub": "u", "roles": ["trader"], "sid": "s", "token_use": use, "iat": now}
    return jwt.encode(claims | ({} if seconds is None else {"exp": now + seconds}), SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    ("access_s", "refresh_s", "ages"),
    [
        (120, 3600, (120, 3600)),
        (9000, 10_000_000, (900, 604_800)),
        (300, None, (300, 604_800)),
        (300, "opaque", (300, 604_800)),
        (300, "not.a.jwt", (300, 604_800)),
    ],
)
async def test_a_cookie_ends_with_its_token(
    relay: Relay,
    backend: ScriptedBackend,
    access_s: int,
    refresh_s: int | str | None,
    ages: tuple[int, int],
) -> None:
    """Max-Age is the smaller one of the setting and the time that the token has left."""
    refresh = refresh_s if isinstance(refresh_s, str) else ending("refresh", refresh_s)
    async with backend.answering(http_answer(200, body_of(ending("access", access_s), refresh))):
        answer = await login(relay, PASSWORD | {"email": f"{access_s}{refresh_s}@example.com"})
    assert answer.status == 200
    for header, age in zip(answer.all("set-cookie"), ages, strict=True):
        [morsel] = SimpleCookie(header).values()
        assert age - 60 <= int(morsel["max-age"]) <= age


async def test_the_end_of_an_opaque_token_is_the_one_that_the_backend_tells(
    backend: ScriptedBackend, tmp_path: Path
) -> None:
    """With the verifier `upstream`, the end of the session's cookie is the `exp` of the answer for that session."""
    relay = make_relay(tmp_path, bff=f'backend = "{backend.origin}"')
    with_session(relay, 'verifier = "upstream"', f'upstream = {{ me = "{backend.origin}/auth/me" }}')
    relay.start()
    both = {
        "accessToken": "opaque",
        "refreshToken": "r",
        "user": {},
        "sub": "u",
        "exp": int(time.time()) + 300,
    }
    try:
        async with backend.answering(http_answer(200, both)):
            answer = await login(relay, PASSWORD | {"email": "opaque@example.com"})
            assert len(backend.requests) == 2
    finally:
        relay.stop()
    assert answer.status == 200
    [morsel] = SimpleCookie(answer.all("set-cookie")[0]).values()
    assert 240 <= int(morsel["max-age"]) <= 300
