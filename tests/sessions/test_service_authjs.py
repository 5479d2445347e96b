"""A relay behind an Auth.js application, as a process: its encrypted cookie, whole or in parts, opens a socket."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.authjs_sessions import SECRET, encrypted
from tests.support.http_client import http_client
from tests.support.relay_process import Relay, make_relay, with_session

NAMES = {5: "authjs.session-token", 4: "next-auth.session-token"}
PART = 3936
"""Bytes of a session that Auth.js puts into one cookie."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that takes JWTs of the backend's and the application's encrypted cookies; nothing of them in its logs."""
    made = make_relay(tmp_path_factory.mktemp("authjs"))
    signed = next(
        line for line in (made.folder / "relay.toml").read_text().split("\n") if "signed = " in line
    )
    authjs = f'authjs = {{ secrets = ["{SECRET}"] }}'
    relay = with_session(made, 'verifier = ["signed", "authjs"]', signed, authjs)
    relay.start()
    yield relay
    relay.stop()
    logs = relay.log_path.read_text() + relay.audit_path.read_text()
    assert "Traceback" not in logs
    assert "eyJ" not in logs
    assert SECRET not in logs


def minted(version: int, **more: str) -> str:
    """Return a fresh session as the application would make it."""
    now = int(time.time())
    payload = {"sub": "user-7", "roles": ["trader"], "iat": now, "exp": now + 60} | more
    return encrypted(payload, version=version, salt=NAMES[version])


async def ask(relay: Relay, cookie: str) -> httpx.Response:
    """Ask for a token from the own page with this Cookie header."""
    async with http_client() as client:
        headers = {"Origin": relay.url, "Cookie": cookie}
        return await client.post(f"{relay.url}/auth/ws-token", headers=headers)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("picture", ["", "x" * 5000], ids=["whole", "in parts"])
async def test_an_encrypted_session_opens_a_socket(relay: Relay, version: int, picture: str) -> None:
    """In one cookie or in parts."""
    text, name = minted(version, picture=picture), NAMES[version]
    parts = [text[at : at + PART] for at in range(0, len(text), PART)]
    pairs = [f"{name}.{index}={part}" for index, part in enumerate(parts)]
    answer = await ask(relay, "; ".join(pairs) if len(pairs) > 1 else f"{name}={text}")
    assert answer.status_code == 200, answer.text
    async with relay.connect(answer.json()["wsToken"]) as socket:
        assert socket.welcome["type"] == "welcome"
    assert (len(pairs) > 1) == bool(picture)


async def test_planted_and_broken_cookies(relay: Relay) -> None:
    """Two of a name, a part twice, a part beside the whole, a part missing: 401, and no log-in is mended by it."""
    text, name = minted(5), NAMES[5]
    half = len(text) // 2
    for cookie in (
        f"{name}={text}; {name}={text[:-4]}",
        f"{name}.0={text[:half]}; {name}.1={text[half:]}; {name}.1={text[half:-4]}",
        f"{name}={text}; {name}.0={text}",
        f"{name}.1={text}",
        f"{name}.0={text[:half]}; {name}.2={text[half:]}",
        f"{NAMES[4]}={text[:-4]}",
        f"__Secure-{name}={text}",
    ):
        answer = await ask(relay, cookie)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session"), cookie[:60]


async def test_the_backends_own_cookie_still_works(relay: Relay) -> None:
    """Both kinds of sessions are users' of the same relay."""
    assert (await relay.ask()).status_code == 200
