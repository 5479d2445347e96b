"""A browser's requests to a page server in this process, and the page that the tests of `relay.pages` ask for."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from relay.pages import PageAnswer, PageBoundary, backend, return_to, verify_session

COOKIES: dict[str, Any] = {"access_cookie": "access-token", "refresh_cookie": "refresh-token"}
"""The names that a test's relay sets, which has no https."""
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Host": "app.example.com"}
ADDRESS = "192.0.2.7"


opened: set[PageBoundary] = set()
"""Page servers with open connections. The fixture in tests/pages/conftest.py closes them."""


async def page(request: Request) -> Response:
    """A page: the user, and what the backend has for this user."""
    user = await verify_session(request)
    if isinstance(user, PageAnswer):
        return user
    orders = await backend(request).get("/elsewhere")
    return JSONResponse({"user": user, "orders": orders.json(), "query": request.url.query})


async def login(request: Request) -> Response:
    """The log-in page: it shows where it would go on."""
    return PlainTextResponse(return_to(request))


def application(origin: str | None, **options: Any) -> PageBoundary:
    """Return a small application with a boundary."""
    routes = [
        Route("/dashboard", page, methods=["GET", "POST"]),
        Route("/dashboard/{name}", page, methods=["GET", "POST"]),
        Route("/open", page),
        Route("/login", login),
        Route("/dashboard.css", login),
    ]
    given: dict[str, Any] = {"protected": ["/dashboard"], "home": "/dashboard", "backend": origin, **COOKIES}
    return PageBoundary(Starlette(routes=routes), **given | options)


async def visit(
    app: Any,
    path: str,
    cookies: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Open a page as a browser does, without following redirects."""
    cookie = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
    if isinstance(app, PageBoundary):
        opened.add(app)
    sent = {**NAVIGATION, **({"Cookie": cookie} if cookie else {}), **(headers or {})}
    fields = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
    transport = httpx.ASGITransport(app, client=(ADDRESS, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://app.example.com") as client:
        return await client.request(method, path, headers=fields)


def destination(answer: httpx.Response) -> tuple[str, dict[str, list[str]]]:
    """Return the path and the parameters to which an answer redirects."""
    assert answer.status_code in (303, 307), answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    parts = urlsplit(answer.headers["location"])
    assert (parts.scheme, parts.netloc) == ("", "")
    return parts.path, parse_qs(parts.query, strict_parsing=True) if parts.query else {}
