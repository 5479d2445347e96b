"""An application in a frame of another site: with bff.same_site = "none", its cookies work there in a real browser."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.backends import ScriptedBackend, http_answer
from tests.support.certificates import Authority
from tests.support.chromium import ARGUMENTS, find_chromium, require_playwright
from tests.support.relay_process import Relay
from tests.support.tls_relay import authority, secure

if TYPE_CHECKING:
    from playwright.async_api import Frame, Route

__all__ = ["authority", "secure"]

BLOCKED = "--test-third-party-cookie-phaseout"
"""Chromium then blocks all cookies in frames of other sites, as Safari and Firefox do, but for partitioned ones."""

CALLS = """async () => {
    const body = JSON.stringify({ email: 'a@example.com', password: 'x' });
    const json = { 'Content-Type': 'application/json' };
    const call = (path, options) => fetch(path, { method: 'POST', ...options }).then((answer) => answer.status);
    const found = [await call('/api/auth/login', { body, headers: json })];
    found.push(await call('/auth/ws-token'));
    found.push(await call('/api/auth/logout'));
    found.push(await call('/auth/ws-token'));
    return { found, cookies: document.cookie };
}"""


async def in_a_frame(relay: Relay) -> Any:
    """Log in, take a token, log out and ask again, in a frame of another site; returns the statuses."""
    require_playwright()
    from playwright.async_api import async_playwright

    inner = f"{relay.url.replace('http:', 'https:')}/frame"
    outer = inner.replace("127.0.0.1", "localhost").replace("/frame", "/outer")

    async def page(route: "Route") -> None:
        frame = f'<iframe src="{inner}"></iframe>' if route.request.url == outer else "inner"
        await route.fulfill(body=f"<!doctype html>{frame}", content_type="text/html")

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=[*ARGUMENTS, BLOCKED]
        )
        try:
            context = await browser.new_context(ignore_https_errors=True)
            await context.route(inner, page)
            await context.route(outer, page)
            tab = await context.new_page()
            await tab.goto(outer)
            frame: Frame | None = tab.frame(url=inner)
            assert frame is not None
            return await frame.evaluate(CALLS)
        finally:
            await browser.close()


@pytest.mark.parametrize(
    ("same_site", "statuses"), [("none", [200, 200, 204, 401]), ("lax", [200, 401, 204, 401])]
)
async def test_an_embedded_application_keeps_its_session(
    tmp_path: Path, authority: Authority, secure: Relay, same_site: str, statuses: list[int]
) -> None:
    """Log-in, token and log-out work in a frame of another site, and with the default none of it does."""
    backend = ScriptedBackend()
    secure.environment |= {"RELAY_BFF__BACKEND": backend.origin, "RELAY_BFF__SAME_SITE": same_site}
    secure.start()
    try:
        good = {"accessToken": secure.session(), "refreshToken": "r", "user": {}}
        async with backend.answering(http_answer(200, good)):
            found = await in_a_frame(secure)
    finally:
        secure.stop()
    assert found == {"found": statuses, "cookies": ""}, json.dumps(found)
