"""Tokens that are too long for one cookie: set, read and cleared in chunks, as Auth.js makes them."""

import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey

from tests.support.backends import ScriptedBackend, http_answer
from tests.support.http_client import http_client
from tests.support.relay_process import SECRET, Relay, running
from tests.support.shared_relay import assert_quiet

LOGIN = {"email": "a@example.com", "password": "p"}


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    """A backend whose answers a test prepares."""
    return ScriptedBackend()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, backend: ScriptedBackend) -> Iterator[Relay]:
    """A relay with this backend."""
    with running(tmp_path_factory.mktemp("long"), bff=f'backend = "{backend.origin}"') as made:
        yield made
    assert_quiet(made)


def long_session(relay: Relay, pad: int, maker: str) -> str:
    """Return a session whose token has so many further characters."""
    claims: dict[str, Any] = jwt.decode(relay.session(), SECRET, algorithms=["HS256"]) | {"groups": "g" * pad}
    if maker == "PyJWT":
        return jwt.encode(claims, SECRET, algorithm="HS256")
    return joserfc_jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


@pytest.mark.parametrize("maker", ["PyJWT", "joserfc"])
@pytest.mark.parametrize("pad", [10, 3000, 6000, 12_000, 14_000])
async def test_a_long_token_is_set_read_and_cleared_in_chunks(
    relay: Relay, backend: ScriptedBackend, pad: int, maker: str
) -> None:
    """A browser logs in with a long token, gets a scoped token, logs in with a short one, and logs out."""
    session = long_session(relay, pad, maker)
    body = {"accessToken": session, "refreshToken": "r" * 4500, "user": {}}
    short = {"accessToken": relay.session(), "refreshToken": "r", "user": {}}
    async with http_client(base_url=relay.url, headers={"Origin": relay.url}) as browser:
        async with backend.answering(http_answer(200, body)):
            assert (await browser.post("/api/auth/login", json=LOGIN)).status_code == 200
        count = -(-len(session) // 3936)
        names = {f"access-token.{index}" for index in range(count)} if count > 1 else {"access-token"}
        assert set(browser.cookies) == names | {"refresh-token.0", "refresh-token.1"}
        assert (await browser.post("/auth/ws-token")).status_code == 200
        async with backend.answering(http_answer(200, short)):
            assert (await browser.post("/api/auth/login", json=LOGIN)).status_code == 200
        assert set(browser.cookies) == {"access-token", "refresh-token"}
        assert (await browser.post("/auth/ws-token")).status_code == 200
        async with backend.answering(http_answer(200, body)):
            assert (await browser.post("/api/auth/login", json=LOGIN)).status_code == 200
        assert (await browser.post("/api/auth/logout")).status_code == 204
        assert not browser.cookies
    assert (await relay.ask(headers={"Authorization": f"Bearer {session}"})).status_code == 401


async def test_tokens_that_do_not_fit_are_refused_at_the_log_in(
    relay: Relay, backend: ScriptedBackend
) -> None:
    """The answer is 502, and the log has the lengths and the bounds."""
    body = {"accessToken": long_session(relay, 15_000, "PyJWT"), "refreshToken": "r", "user": {}}
    async with (
        backend.answering(http_answer(200, body)),
        http_client(base_url=relay.url, headers={"Origin": relay.url}) as browser,
    ):
        answer = await browser.post("/api/auth/login", json=LOGIN)
    assert (answer.status_code, answer.json()["retryable"], dict(browser.cookies)) == (502, False, {})
    [line] = [
        json.loads(text)
        for text in relay.log_path.read_text().splitlines()
        if "19680 each, 26000 together" in text and '"warning"' in text
    ]
    assert line["came"].startswith("tokens of ")
