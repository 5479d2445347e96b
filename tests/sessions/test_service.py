"""A relay whose sessions the backend judges, as a process: log-in, tokens, log-out, and the backend gone."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backends import demo_backend, running_backend
from tests.support.http_client import http_client
from tests.support.relay_process import make_relay, with_session

LOGIN = {"email": "demo@example.com", "password": "demo"}
CLAIMS = 'claims = { subject = "user.email", roles = "user.roles" }'
CANARY = "canary-token-0123456789"


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[str]:
    """The origin of the demo's backend."""
    with demo_backend(tmp_path) as origin:
        yield origin


async def test_log_in_tokens_and_log_out(tmp_path: Path, backend: str) -> None:
    """The relay holds no key of the backend's, and all of it works; after the log-out the cookie is worth nothing."""
    made = make_relay(tmp_path, bff=f'backend = "{backend}"')
    upstream = f'upstream = {{ me = "{backend}/auth/me" }}'
    relay = with_session(made, 'verifier = "upstream"', upstream, CLAIMS)
    relay.start()
    try:
        async with http_client(headers={"Origin": relay.url}) as browser:
            answer = await browser.post(f"{relay.url}/api/auth/login", json=LOGIN)
            assert answer.status_code == 200, answer.text
            session = answer.cookies["access-token"]
            answer = await browser.post(f"{relay.url}/auth/ws-token")
            assert answer.status_code == 200, answer.text
        async with relay.connect(answer.json()["wsToken"]) as socket:
            await relay.logout(session)
            assert (await socket.closed())[0] == 4501
        answer = await relay.ask(session)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")
        issued = await relay.audited("token.issued")
        assert issued["user"]["id"] == LOGIN["email"]
    finally:
        relay.stop()


async def test_the_session_check_is_down(tmp_path: Path) -> None:
    """503 that may be tried again, never a token, the cookie stays; and nothing of it all is in any log."""
    async with running_backend() as backend:
        relay = with_session(
            make_relay(tmp_path),
            'verifier = "upstream"',
            f'upstream = {{ me = "{backend.url}", cache_s = 0 }}',
        )
        relay.start()
        try:
            backend.answers({"sub": "user-1", "roles": ["trader"]})
            assert (await relay.ask(CANARY)).status_code == 200
            backend.answers(status=500)
            broken = await relay.ask(CANARY)
            backend.hold()
            hanging = await relay.ask(CANARY)
            for answer in (broken, hanging):
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert answer.json()["retryable"] is True
                assert "wsToken" not in answer.text
                assert "set-cookie" not in answer.headers
            await relay.audited("token.denied", reason="backend_unavailable")
        finally:
            relay.stop(signal.SIGTERM)
    assert CANARY not in relay.log_path.read_text() + relay.audit_path.read_text()
    assert "Traceback" not in relay.log_path.read_text()
