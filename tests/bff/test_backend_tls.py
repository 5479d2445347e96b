"""Log-in at a backend whose certificate comes from a company's own authority."""

from pathlib import Path

import pytest

from relay.bff.backend import Backend, BackendOptions, LoggedIn
from relay.core.errors import UnavailableError
from relay.core.events import Client
from tests.support.backends import ScriptedBackend, http_answer
from tests.support.certificates import Authority

CREDENTIALS = {"email": "demo@example.com", "password": "demo"}
ANSWER = http_answer(200, {"accessToken": "access", "refreshToken": "refresh", "user": {"name": "A"}})


async def login(scripted: ScriptedBackend) -> object:
    """Log in at this backend once."""
    backend = Backend(BackendOptions(origin=scripted.origin, login_path="/auth/login", timeout_s=5))
    try:
        async with scripted.answering(ANSWER):
            return await backend.login(CREDENTIALS, Client())
    finally:
        await backend.aclose()


async def test_an_authority_of_this_machine_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend with a company's certificate works at log-in where the machine has the company's authority."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    answer = await login(ScriptedBackend(authority.issue("127.0.0.1")))
    assert isinstance(answer, LoggedIn)
    assert answer.user == {"name": "A"}


@pytest.mark.parametrize(("name", "known"), [("127.0.0.1", False), ("127.0.0.2", True)])
async def test_a_certificate_that_proves_nothing_gets_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, known: bool
) -> None:
    """With an unknown authority, or with another host's certificate, the log-in fails and no password is sent."""
    authority = Authority(tmp_path)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    scripted = ScriptedBackend(authority.issue(name))
    with pytest.raises(UnavailableError, match="The backend's log-in did not answer: ConnectError"):
        await login(scripted)
    assert scripted.requests == []
