"""The Next.js example's server, called without a browser: each entrance by itself, the boundary, two users at once."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from tests.support.canaries import hits
from tests.support.http_client import http_client
from tests.support.next_example import FOLDER, PASSWORD, REFRESH, SESSION, Example, manifest, running_example
from tests.support.return_paths import BAD, GOOD

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADA, BEN, ROOT_USER = "ada@example.com", "ben@example.com", "root@example.com"
PUBLIC = {"/login", "/session", "/_not-found", "/_global-error"}
SKIPS_THE_BOUNDARY = [
    {"RSC": "1"},
    {"RSC": "1", "Next-Router-Prefetch": "1"},
    {"x-middleware-subrequest": ":".join(["proxy"] * 5), "RSC": "1"},
    {"x-middleware-subrequest": ":".join(["src/middleware"] * 5), "Next-Action": "0" * 42},
]
"""Ways past the boundary: its own exceptions, and the header of CVE-2025-29927."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def example(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Example]:
    """The example, built and running."""
    async with running_example(tmp_path_factory.mktemp("nextjs")) as example:
        yield example


@pytest_asyncio.fixture(loop_scope="module")
async def server(example: Example) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the Next.js server itself, without a cookie and without nginx before it."""
    example.backend.calls.clear()
    async with http_client(base_url=example.next_url) as client:
        yield client


async def cookies_of(example: Example, email: str) -> dict[str, str]:
    """Log in through nginx and the relay; returns the cookies as a request has them."""
    async with http_client() as client:
        answer = await client.post(
            f"{example.url}/api/auth/login",
            json={"email": email, "password": PASSWORD},
            headers={"Origin": example.url},
        )
    assert answer.status_code == 200, answer.text
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in answer.cookies.items())}


def entrances(example: Example) -> dict[str, str]:
    """Return the paths of all pages and route handlers, with what each is; a new one is tested without being named."""
    found = {}
    for name in manifest(example.app, "app-paths-manifest"):
        path, _, kind = re.sub(r"/\([a-z]+\)", "", name).rpartition("/")
        found[path] = kind
    return found


async def get(server: httpx.AsyncClient, path: str, headers: dict[str, str]) -> httpx.Response:
    """GET a path as the Next.js client would, which adds a hash of its headers to the address."""
    answer = await server.get(path, headers=headers)
    again = answer.headers.get("location", "")
    return await server.get(again, headers=headers) if "?_rsc" in again else answer


async def save(
    server: httpx.AsyncClient, action: str, headers: dict[str, str], note: str = "x"
) -> httpx.Response:
    """Call a server action as the form of the settings does, with one form as its argument."""
    parts: dict[str, Any] = {"_1_note": (None, note), "0": (None, '["$K1"]')}
    return await server.post("/settings", headers={"Next-Action": action, **headers}, files=parts)


async def test_the_install_is_reproducible() -> None:
    """The lock file has a hash of each package and names no registry, so npm asks the one that its user has set."""
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    del packages[""], packages["node_modules/scoped-relay"]  # the example, and the client of this checkout
    assert [name for name, package in packages.items() if "integrity" not in package] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []


async def test_row_26_each_page_and_handler_asks_for_the_session(
    example: Example, server: httpx.AsyncClient
) -> None:
    """Each page and route handler refuses a call without a cookie, also where the boundary does not look."""
    paths = entrances(example)
    assert {"/dashboard", "/settings", "/admin", "/dashboard/prices.csv", *PUBLIC} == paths.keys()
    for path in paths.keys() - PUBLIC:
        for headers in SKIPS_THE_BOUNDARY:
            answer = await get(server, path, headers)
            if paths[path] == "route":
                assert (answer.status_code, answer.json()) == (401, {"code": "invalid_session"}), path
            elif answer.status_code == 307:
                assert answer.headers["location"].startswith("/login"), path
            else:
                assert "NEXT_REDIRECT;replace;/login" in answer.text or "Next-Router-Prefetch" in headers
            assert not re.search(r"example\.com|ETH-USD|Ada|Settings of", answer.text), (path, headers)
    assert example.backend.calls.total() == 0


async def test_row_26_each_server_action_asks_for_the_session(
    example: Example, server: httpx.AsyncClient
) -> None:
    """Each server action refuses a call without a cookie; the same call with a session does its work."""
    actions = manifest(example.app, "server-reference-manifest")["node"]
    assert {action["exportedName"] for action in actions.values()} == {"saveSettings"}
    for action in actions:
        refused = await save(server, action, {})
        assert '"code":"session_renew"' in refused.text, refused.text
        assert example.backend.calls.total() == 0
        saved = await save(server, action, await cookies_of(example, BEN), "by a direct call")
        assert '"code":"saved"' in saved.text, saved.text
    assert example.backend.accounts.settings[BEN] == {"note": "by a direct call"}


async def test_row_26_roles_are_checked_by_the_page(example: Example, server: httpx.AsyncClient) -> None:
    """The admin page shows nothing to a trader, neither as a page nor as the payload of a navigation."""
    trader, admin = await cookies_of(example, ADA), await cookies_of(example, ROOT_USER)
    for headers in ({}, {"RSC": "1"}):
        refused = await get(server, "/admin", trader | headers)
        assert BEN not in refused.text
        shown = await get(server, "/admin", admin | headers)
        assert BEN in shown.text


KNOWN = {"Cookie": f"{SESSION}=x"}
CHUNKED = {"Cookie": f"{SESSION}.0=x; {SESSION}.1=y"}
RENEWABLE = {"Cookie": f"{REFRESH}=x"}
OTHER = {"Cookie": f"access-token=x; {SESSION}.9=x; theme=dark"}
BOUNDARY: list[tuple[str, dict[str, str], str | None]] = [
    ("/dashboard", {}, "/login"),
    ("/settings", {}, "/login?returnTo=%2Fsettings"),
    ("/settings?a=1&b=%2F", {}, "/login?returnTo=%2Fsettings%3Fa%3D1%26b%3D%252F"),
    ("/settings?a=b%20c", {}, "/login?returnTo=%2Fsettings%3Fa%3Db%2Bc"),
    ("/admin", {}, "/login?returnTo=%2Fadmin"),
    ("/dashboard/prices.csv", {}, "/login?returnTo=%2Fdashboard%2Fprices.csv"),
    ("/no/such/page", {}, "/login?returnTo=%2Fno%2Fsuch%2Fpage"),
    ("/settings", OTHER, "/login?returnTo=%2Fsettings"),
    ("/apis", {}, "/login?returnTo=%2Fapis"),
    ("/login", {}, None),
    ("/login?ended=1", KNOWN, None),
    ("/login", KNOWN, "/dashboard"),
    ("/login", RENEWABLE, "/dashboard"),
    ("/login", CHUNKED, "/dashboard"),
    ("/login?returnTo=%2Fsettings%3Fa%3D1", KNOWN, "/settings?a=1"),
    ("/login?returnTo=%2Fa&returnTo=%2Fb", KNOWN, "/dashboard"),
    ("/session?returnTo=%2Fsettings&at=1", {}, None),
    ("/api/auth/me", {}, None),
    ("/api/proxy/users", {}, None),
    ("/auth/ws-token", {}, None),
    ("/ws/prices", {}, None),
    ("/_next/static/nothing.js", {}, None),
    ("/favicon.ico", {}, None),
]


@pytest.mark.parametrize("own", [{}, {"RSC": "1"}, {"Next-Action": "0" * 42}], ids=["page", "rsc", "action"])
async def test_row_27_the_boundary(server: httpx.AsyncClient, own: dict[str, str]) -> None:
    """The boundary redirects visitors without a cookie from pages, and never a navigation's payload or an action."""
    for path, headers, wanted in BOUNDARY:
        call = server.post if "Next-Action" in own else server.get
        answer = await call(path, headers=headers | own)
        by_boundary = answer.status_code == 307 and "no-store" in answer.headers.get("cache-control", "")
        found = (
            answer.headers["location"].removeprefix(str(server.base_url).rstrip("/")) if by_boundary else None
        )
        assert found == (None if own else wanted), (path, headers, own, answer.status_code)


async def test_each_page_has_a_policy_with_a_new_nonce(example: Example, server: httpx.AsyncClient) -> None:
    """Each script of each page has the nonce of this answer, the page of unknown addresses included."""
    session = await cookies_of(example, ROOT_USER)
    pages = {path for path, kind in entrances(example).items() if kind == "page"} - {"/_global-error"}
    nonces = []
    for path in [*pages, "/no/such/page", "/login?ended=1"]:
        answer = await server.get(path, headers=session)
        if answer.status_code == 307:  # the log-in, with a session
            continue
        [policy] = answer.headers.get_list("content-security-policy")
        [nonce] = re.findall(r"script-src 'nonce-([\w+/=]{40,})' 'strict-dynamic';", policy)
        assert "connect-src 'self'; object-src 'none'; base-uri 'none'" in policy
        scripts = re.findall("<script[^>]*>", answer.text)
        assert scripts
        assert [script for script in scripts if f'nonce="{nonce}"' not in script] == [], path
        nonces.append(nonce)
    assert len(nonces) == len(set(nonces)) >= 5


async def test_row_25_return_to(server: httpx.AsyncClient) -> None:
    """The page to go on to is one of the application, in each of hundreds of spellings."""

    async def found(text: str) -> str:
        value = quote(text, safe="", errors="replace")
        answer = await server.get(f"/login?returnTo={value}", headers=KNOWN)
        return answer.headers["location"].removeprefix(str(server.base_url).rstrip("/"))

    wrong = [ascii(text) for text in BAD if "\ud800" not in text and await found(text) != "/dashboard"]
    assert not wrong, wrong
    kept = [await found(text) for text in GOOD]
    # a % that escapes nothing is more than this check takes
    assert kept.count("/dashboard") == 1 + sum(text in {"/%", "/%zz"} for text in GOOD)
    assert all(re.match(r"/(?!/)", path) for path in kept)


async def test_row_28_two_users_at_once(example: Example, server: httpx.AsyncClient) -> None:
    """Two users whose pages are rendered at the same moment each get their own, and no answer may be cached."""
    users = {ADA: ("Ada Trader", "Ben Trader"), BEN: ("Ben Trader", "Ada Trader")}
    example.backend.accounts.settings |= {email: {"note": f"note of {email}"} for email in users}
    sessions = {email: await cookies_of(example, email) for email in users}
    each = 10
    example.backend.together["/auth/me"] = asyncio.Barrier(2 * each)

    async def render(email: str, number: int) -> None:
        headers = sessions[email] | ({"RSC": "1"} if number % 2 else {})
        answer = await get(server, "/settings", headers)
        own, other = users[email]
        assert (own in answer.text, f"note of {email}" in answer.text) == (True, True), answer.text
        assert other not in answer.text
        assert "no-store" in answer.headers["cache-control"]

    try:
        await asyncio.gather(*(render(email, number) for email in users for number in range(each)))
    finally:
        del example.backend.together["/auth/me"]
    assert example.backend.calls["/auth/me"] == 2 * each


async def test_row_28_calls_are_bound_to_the_request(example: Example, server: httpx.AsyncClient) -> None:
    """A call to the backend has the visitor's address, and no answer of the server has a token."""
    example.backend.addresses.clear()
    session = await cookies_of(example, ROOT_USER) | {"X-Forwarded-For": "203.0.113.7"}
    seen = {}
    for path in entrances(example).keys() - {"/_not-found", "/_global-error"}:
        for own in ({}, {"RSC": "1"}):
            answer = await get(server, path, session | own)
            seen[f"{path} {own}"] = f"{answer.text} {answer.headers}"
    assert "203.0.113.7" in example.backend.addresses
    assert "root@example.com" in seen["/admin {}"]
    assert hits({token[:20]: token for token in example.backend.tokens}, seen) == set()


async def test_rows_5_and_7_the_server_redeems_nothing(example: Example, server: httpx.AsyncClient) -> None:
    """No page, payload, prefetch or action refreshes a session whose access cookie is gone, and none sets a cookie."""
    whole = (await cookies_of(example, ADA))["Cookie"]
    [refresh] = [pair for pair in whole.split("; ") if pair.startswith(REFRESH)]
    [action] = manifest(example.app, "server-reference-manifest")["node"]
    answers = [
        await get(server, path, {"Cookie": refresh, **own})
        for path in entrances(example).keys() - PUBLIC
        for own in ({}, {"RSC": "1"}, {"RSC": "1", "Next-Router-Prefetch": "1"}, {"Sec-Purpose": "prefetch"})
    ]
    answers.append(await save(server, action, {"Cookie": refresh}))
    assert '"code":"session_renew"' in answers[-1].text
    assert not any("set-cookie" in answer.headers for answer in answers)
    assert example.backend.calls["/auth/refresh"] == 0
    assert example.backend.calls["/auth/me"] == 0
