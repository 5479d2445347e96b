"""Cookies that the real Auth.js and NextAuth set while this test runs, from log-in to session."""

import time
from pathlib import Path
from typing import Any

import pytest

from relay.core.errors import Refusal
from relay.sessions.base import Session
from relay.sessions.cookies import find_session
from tests.support.authjs_sessions import COOKIES, SECRET, VERIFIER, mint
from tests.support.npm_package import installed

HTTP, HTTPS = "http://localhost:3000", "https://app.example.com"


def order(version: int, url: str, *, secret: str = SECRET, **token: Any) -> dict[str, Any]:
    """Return what the packages are asked for: a log-in for a minute."""
    return {"version": version, "url": url, "secret": secret, "maxAge": 60, "token": token}


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with both packages in it."""
    return installed()


async def test_sessions_of_the_real_packages(packages: Path) -> None:
    """Both versions, over http and https, in one cookie and in parts, each with its own name and salt."""
    asked = [
        order(version, url, **token)
        for version in (5, 4)
        for url in (HTTP, HTTPS)
        for token in ({"roles": ["trader"]}, {"sid": "s-1"}, {"picture": "data:," + "x" * 6000})
    ]
    for wanted, header in zip(asked, mint(packages, *asked), strict=True):
        text = find_session([header], COOKIES)
        assert isinstance(text, str), (wanted, text)
        assert (".0=" in header) == ("picture" in wanted["token"])
        session = await VERIFIER.verify(text, now=time.time())
        assert isinstance(session, Session), (wanted, session)
        assert session.subject == "user-7"
        assert session.roles == tuple(wanted["token"].get("roles", ()))
        assert session.own_id == ("sid" in wanted["token"])
        expired = await VERIFIER.verify(text, now=time.time() + 120)
        assert isinstance(expired, Refusal)


async def test_their_other_secrets_open_nothing(packages: Path) -> None:
    """The same application with another secret is another application."""
    asked = [order(version, HTTPS, secret="s" * 40) for version in (5, 4)]
    for header in mint(packages, *asked):
        text = find_session([header], COOKIES)
        assert isinstance(text, str)
        assert isinstance(await VERIFIER.verify(text, now=time.time()), Refusal)
