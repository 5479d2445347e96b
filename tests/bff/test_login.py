"""Log-in against a real backend: two HttpOnly cookies, the user, and no token that a script could read."""

import json
from http.cookies import Morsel, SimpleCookie

import jwt
import pytest

from tests.support.raw_http import Answer, exchange, head, post
from tests.support.relay_process import SECRET, Relay

GOOD = {"email": "demo@example.com", "password": "demo"}


async def login(relay: Relay, body: object = None, **fields: str) -> Answer:
    """Log in from the application's own page."""
    content = body if isinstance(body, bytes) else json.dumps(GOOD if body is None else body).encode()
    first = {"Origin": relay.url, "Content-Type": "application/json"} | fields
    return await post(relay, "/api/auth/login", list(first.items()), body=content)


def cookies(answer: Answer) -> dict[str, Morsel[str]]:
    """Return the cookies that an answer sets."""
    return {
        name: morsel for header in answer.all("set-cookie") for name, morsel in SimpleCookie(header).items()
    }


async def test_both_cookies_are_out_of_scripts_reach(relay: Relay) -> None:
    """HttpOnly, SameSite=Lax, Path=/ and no Domain; 15 minutes and 7 days; the tokens are the backend's own."""
    answer = await login(relay)
    assert answer.status == 200
    jar = cookies(answer)
    assert set(jar) == {"access-token", "refresh-token"}
    for name, age in (("access-token", 900), ("refresh-token", 604_800)):
        morsel = jar[name]
        assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "lax", "/")
        assert morsel["domain"] == ""
        assert age - 2 <= int(morsel["max-age"]) <= age, (
            "the tokens of this backend live as long as the settings say"
        )
        claims = jwt.decode(morsel.value, SECRET, algorithms=["HS256"])
        assert claims["token_use"] == name.partition("-")[0]


async def test_the_body_has_the_user_and_no_token(relay: Relay) -> None:
    """`{"user": …}` alone; no part of either token is in the body or in another header; nobody caches it."""
    answer = await login(relay)
    assert answer.json == {"user": {"name": "Demo Trader", "email": "demo@example.com", "roles": ["trader"]}}
    assert answer.all("cache-control") == ["private, no-store"]
    others = str([field for field in answer.fields if field[0] != "set-cookie"]) + answer.body.decode()
    for morsel in cookies(answer).values():
        assert not [part for part in morsel.value.split(".") if part in others]


async def test_the_cookie_buys_a_scoped_token(relay: Relay) -> None:
    """What the log-in set is what /auth/ws-token takes; the refresh token is not."""
    jar = cookies(await login(relay))
    for name, status in (("access-token", 200), ("refresh-token", 401)):
        fields = [("Origin", relay.url), ("Cookie", f"access-token={jar[name].value}")]
        assert (await post(relay, "/api/auth/ws-token", fields)).status == status


async def test_each_log_in_is_a_session_of_its_own(relay: Relay) -> None:
    """Two log-ins of one user have two session ids, so that one can be ended without the other."""
    tokens = [cookies(await login(relay))["access-token"].value for _ in range(2)]
    ids = {jwt.decode(token, SECRET, algorithms=["HS256"])["sid"] for token in tokens}
    assert len(ids) == 2


@pytest.mark.parametrize(
    "credentials",
    [
        {"email": "demo@example.com", "password": "wrong"},
        {"email": "nobody@example.com", "password": "demo"},
        {"email": "demo@example.com", "password": "DEMO"},
        {"email": " demo@example.com", "password": "demo"},
        {"email": "demo@example.com\u0000", "password": "demo"},
        {"email": "' OR 1=1 --", "password": "\u202e"},
    ],
)
async def test_wrong_credentials_are_401(relay: Relay, credentials: dict[str, str]) -> None:
    """One answer whatever was wrong, and no cookie."""
    answer = await login(relay, credentials)
    assert (answer.status, answer.code) == (401, "invalid_credentials")
    assert answer.all("set-cookie") == []
    assert answer.body == (await login(relay, GOOD | {"password": "x"})).body


async def test_a_failed_log_in_keeps_no_name(relay: Relay) -> None:
    """The record has a keyed hash of the name: people type passwords there. The same name has the same hash."""
    name = "Hunter2-typed-in-the-wrong-field"
    await login(relay, {"email": name, "password": "x"})
    await login(relay, {"email": f" {name.upper()} ", "password": "x"})
    record = await relay.audited("login.failed", reason="credentials_invalid")
    assert len(record["relay"]["name_hmac"]) == 32
    assert "hunter2" not in str(relay.audit()).lower()


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "demo",
        {"email": "demo@example.com"},
        {"password": "demo"},
        {"email": "", "password": "demo"},
        {"email": "demo@example.com", "password": ""},
        {"email": "demo@example.com", "password": None},
        {"email": ["demo@example.com"], "password": "demo"},
        {"email": {"$ne": ""}, "password": {"$ne": ""}},
        b"",
        b"{",
        b'{"email":"demo@example.com","password":"x","password":"demo"}',
        b'{"email":"\xff","password":"demo"}',
        b'{"email":"\\ud800","password":"demo"}',
        {"email": "demo@example.com", "password": "x" * 5000},
    ],
)
async def test_malformed_credentials_are_400(relay: Relay, body: object) -> None:
    """What is no pair of texts never reaches the backend."""
    answer = await login(relay, body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.all("set-cookie") == []


async def test_other_members_are_not_passed_on(relay: Relay) -> None:
    """The backend gets email and password, whatever else a browser sends."""
    assert (await login(relay, GOOD | {"admin": True, "redirect": "http://evil.example/"})).status == 200


async def test_a_log_in_is_recorded(relay: Relay) -> None:
    """login.succeeded names the user and the session's reference."""
    await login(relay)
    record = await relay.audited("login.succeeded")
    assert record["user"] == {"id": "demo"}
    assert len(record["relay"]["session"]["ref"]) == 32
    assert record["http"]["response"]["status_code"] == 200


async def test_a_get_logs_nobody_in_or_out(relay: Relay) -> None:
    """Links and images can't: 405, and no cookie is touched."""
    for path in ("/api/auth/login", "/api/auth/logout"):
        fields = [("Host", "x"), ("Cookie", f"access-token={relay.session()}"), ("Origin", relay.url)]
        answer = await exchange(relay.ports[0], head("GET", path, fields))
        assert (answer.status, answer.all("set-cookie")) == (405, [])


async def test_a_log_in_is_refused_for_forgers(relay: Relay) -> None:
    """Another site can't log a visitor in to an account of its own; the attempt is recorded."""
    answer = await login(relay, Origin="https://evil.example")
    assert (answer.status, answer.code) == (403, "csrf_failed")
    await relay.audited("login.failed", reason="csrf_failed")
