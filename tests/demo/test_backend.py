"""The demo's backend as a process, over HTTP."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.support.http_client import http_client

SECRET = "demo-secret-of-a-test-0123456789abcdef"
RIGHT = {"email": "demo@example.com", "password": "demo"}


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the backend as the demo does."""
    return subprocess.Popen(
        [sys.executable, "-m", "relay.demo.backend", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one backend for this module; it must not have written anything to standard error at the end."""
    secret = tmp_path_factory.mktemp("backend") / "secret"
    secret.write_text(SECRET + "\n")
    with start("--port", "0", "--secret-file", str(secret)) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert errors == ""
        assert process.returncode == 130


@pytest.fixture
async def client(address: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the backend."""
    async with http_client(base_url=address) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def _login(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/auth/login", json=RIGHT)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    return body


async def test_login_gives_two_tokens_and_a_user(client: httpx.AsyncClient) -> None:
    """Access for 15 minutes, refresh for 7 days, told apart by token_use, of one new session."""
    body = await _login(client)
    assert set(body) == {"accessToken", "refreshToken", "user"}
    assert body["user"] == {"name": "Demo Trader", "email": "demo@example.com", "roles": ["trader"]}
    access = jwt.decode(body["accessToken"], SECRET, algorithms=["HS256"])
    refresh = jwt.decode(body["refreshToken"], SECRET, algorithms=["HS256"])
    assert (access["token_use"], refresh["token_use"]) == ("access", "refresh")
    assert access["exp"] - access["iat"] == 900
    assert refresh["exp"] - refresh["iat"] == 7 * 24 * 3600
    assert access["roles"] == ["trader"]
    assert access["sid"] == refresh["sid"]
    again = jwt.decode((await _login(client))["accessToken"], SECRET, algorithms=["HS256"])
    assert again["sid"] != access["sid"]
    assert again["sub"] == access["sub"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "demo@example.com", "password": "Demo"},
        {"email": "else@example.com", "password": "demo"},
        {"email": "", "password": ""},
        {"email": "demo@example.com", "password": "\ud800"},
    ],
)
async def test_wrong_credentials_are_refused(client: httpx.AsyncClient, wrong: dict[str, str]) -> None:
    """Name and password are refused with the same answer, whichever is wrong."""
    answer = await client.post("/auth/login", content=json.dumps(wrong))
    assert answer.status_code == 401
    assert answer.json() == {"code": "invalid_credentials", "message": "The name or the password is wrong."}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nope",
        b"[]",
        b"\xff",
        b"{}",
        b'{"email":1,"password":2}',
        b"[" * 3000,
        b'{"a":"' + b"x" * 9000 + b'"}',
    ],
)
async def test_garbage_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    """What is no log-in gets 400 with a sentence, and the process stays up."""
    answer = await client.post("/auth/login", content=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    await _login(client)


async def test_me_takes_access_tokens_only(client: httpx.AsyncClient) -> None:
    """The access token opens /auth/me; a refresh token, garbage or nothing does not."""
    body = await _login(client)
    answer = await client.get("/auth/me", headers=_bearer(body["accessToken"]))
    assert answer.status_code == 200
    assert answer.json() == {"user": body["user"]}
    foreign = jwt.encode(
        {"sub": "demo", "sid": "x", "token_use": "access", "iat": 1, "exp": 1 << 33}, "k" * 32
    )
    old = jwt.encode({"sub": "demo", "sid": "x", "token_use": "access", "iat": 1, "exp": 2}, SECRET)
    for token in (body["refreshToken"], foreign, old, "garbage", ""):
        refused = await client.get("/auth/me", headers={"Authorization": f"Bearer {token}".strip()})
        assert refused.status_code == 401
        assert refused.json()["code"] == "invalid_session"
    assert (await client.get("/auth/me")).status_code == 401


async def test_logout_ends_that_session(client: httpx.AsyncClient) -> None:
    """After log-out the session's token is void, another session's is not."""
    first, second = await _login(client), await _login(client)
    assert (await client.post("/auth/logout", headers=_bearer(first["accessToken"]))).status_code == 204
    assert (await client.get("/auth/me", headers=_bearer(first["accessToken"]))).status_code == 401
    assert (await client.post("/auth/logout", headers=_bearer(first["accessToken"]))).status_code == 401
    assert (await client.get("/auth/me", headers=_bearer(second["accessToken"]))).status_code == 200


def test_a_wrong_argument_is_one_line(tmp_path: Path, address: str) -> None:
    """A missing or short secret, a port in use and an invalid port: exit code 2 and one sentence each."""
    short, good = tmp_path / "short", tmp_path / "good"
    short.write_text("demo")
    good.write_text(SECRET)
    taken = address.rpartition(":")[2]
    for arguments, sentence in [
        (["--secret-file", str(tmp_path / "none")], "can't be read"),
        (["--secret-file", str(short)], "HS256 needs at least 32"),
        (["--secret-file", str(good), "--port", taken], f"Port {taken} can't be used"),
        (["--secret-file", str(good), "--port", "70000"], "not a port"),
    ]:
        with start(*arguments) as process:
            output, errors = process.communicate(timeout=20)
        assert process.returncode == 2
        assert output == ""
        assert sentence in errors
        assert errors.count("\n") == 1


async def test_a_refresh_token_is_good_once(client: httpx.AsyncClient) -> None:
    """It is rotated; a second use ends the session, because somebody has a copy."""
    first = await _login(client)
    answer = await client.post("/auth/refresh", headers=_bearer(first["refreshToken"]))
    assert answer.status_code == 200
    second = answer.json()
    assert set(second) == {"accessToken", "refreshToken"}
    assert (await client.get("/auth/me", headers=_bearer(second["accessToken"]))).status_code == 200
    assert (await client.post("/auth/refresh", headers=_bearer(first["accessToken"]))).status_code == 401
    assert (await client.post("/auth/refresh", headers=_bearer(first["refreshToken"]))).status_code == 401
    assert (await client.get("/auth/me", headers=_bearer(second["accessToken"]))).status_code == 401
    assert (await client.post("/auth/refresh", headers=_bearer(second["refreshToken"]))).status_code == 401


async def test_what_it_received_names_tokens_by_their_fingerprint_only(client: httpx.AsyncClient) -> None:
    """Each session sees its own requests: the Bearer, whether a cookie came, and the fields that were sent."""
    first, other = await _login(client), await _login(client)
    access = _bearer(first["accessToken"])
    await client.get("/account", headers=access | {"Cookie": "a=b"})
    second = (await client.post("/auth/refresh", headers=_bearer(first["refreshToken"]))).json()
    answer = await client.get("/received", headers=_bearer(second["accessToken"]))
    login, account, refresh = answer.json()["requests"]
    assert (login["request"], login["bearer"]) == ("POST /auth/login", None)
    assert (account["request"], account["cookie"], account["bearer"]["use"]) == (
        "GET /account",
        True,
        "access",
    )
    assert account["sent"] == [
        "name",
        "email",
        "nationalId",
        "accounts.*.id",
        "accounts.*.currency",
        "accounts.*.balance",
        "accounts.*.internalScore",
    ]
    assert (refresh["request"], refresh["cookie"], refresh["bearer"]["use"]) == (
        "POST /auth/refresh",
        False,
        "refresh",
    )
    assert account["bearer"] == login["issued"] != refresh["issued"]
    for token in (*first.values(), *second.values()):
        assert str(token) not in answer.text
    own = await client.get("/received", headers=_bearer(other["accessToken"]))
    assert [entry["request"] for entry in own.json()["requests"]] == ["POST /auth/login"]
    assert (await client.get("/received", headers=_bearer(first["refreshToken"]))).status_code == 401
    assert (await client.get("/account")).status_code == 401
