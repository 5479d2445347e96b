"""A dashboard with a log-in, pages that need a session, and live prices, rendered by Starlette.

    python examples/pages/dashboard.py --backend http://127.0.0.1:9000 --stream ws://localhost:8001

`start.py` in this folder starts it with all that it needs. Each page asks for its session itself. Data comes from the
backend with the user's own token, and prices from the relay with a token for 30 seconds: no script sees another one.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from relay.pages import ConfigurationError, PageAnswer, PageBoundary, User, backend, return_to, verify_session

FOLDER = Path(__file__).parent
LAYOUT = Template((FOLDER / "layout.html").read_text("utf-8"))
PROTECTED = ("/dashboard", "/settings")


async def first(_request: Request) -> Response:
    return RedirectResponse("/dashboard")


async def login(request: Request) -> Response:
    ended = request.query_params.get("ended") == "1"
    following = escape(return_to(request, default="/dashboard"))
    return page(
        "Log in",
        f"""<form id="login" class="panel" data-following="{following}">
          <h1>Log in</h1>
          {'<p class="note">Your session has ended. Log in to go on.</p>' if ended else ""}
          <label>E-mail <input name="email" type="email" autocomplete="username" required autofocus></label>
          <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
          <button>Log in</button>
          <p class="problem" role="alert" hidden></p>
        </form>""",
        script="login.js",
    )


async def dashboard(request: Request) -> Response:
    user = await verify_session(request)
    if isinstance(user, PageAnswer):
        return user
    rows = "".join(
        f'<tr data-symbol="{escape(symbol)}"><th scope="row">{escape(symbol)}</th>'
        '<td class="bid">-</td><td class="ask">-</td></tr>'
        for symbol in await watchlist(request)
    )
    return page(
        "Dashboard",
        f"""<section class="panel">
          <header><h1>Prices</h1><p id="state" role="status">connecting</p></header>
          <table><thead><tr><th scope="col">Symbol</th><th scope="col">Bid</th><th scope="col">Ask</th></tr></thead>
          <tbody id="prices">{rows}</tbody></table>
          <p><a href="/dashboard/watchlist.csv">Download the list</a></p>
        </section>""",
        script="prices.js",
        user=user,
    )


async def watchlist_file(request: Request) -> Response:
    user = await verify_session(request)
    if isinstance(user, PageAnswer):
        return user
    text = io.StringIO()
    csv.writer(text).writerows([["symbol"], *([symbol] for symbol in await watchlist(request))])
    return PlainTextResponse(
        text.getvalue(),
        headers={"Content-Disposition": "attachment; filename=watchlist.csv"},
        media_type="text/csv",
    )


async def settings(request: Request) -> Response:
    user = await verify_session(request)
    if isinstance(user, PageAnswer):
        return user
    return settings_page(user, await watchlist(request), saved="saved" in request.query_params)


async def save_settings(request: Request) -> Response:
    user = await verify_session(request)
    if isinstance(user, PageAnswer):
        return user
    # cookies with SameSite=Lax come with a form of a sibling host, too
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return PlainTextResponse("The form is not from this site.", 403)
    form = parse_qs((await request.body()).decode(errors="replace"))
    symbols = "".join(form.get("symbols", [])).upper().split()
    answer = await backend(request).put("/watchlist", json=symbols)
    if answer.status_code == 422:
        return settings_page(user, symbols, problem=answer.json()["message"])
    answer.raise_for_status()
    return RedirectResponse("/settings?saved", 303)


async def watchlist(request: Request) -> list[str]:
    """Ask the backend for the symbols of the request's user."""
    answer = await backend(request).get("/watchlist")
    symbols: list[str] = answer.raise_for_status().json()
    return symbols


def settings_page(user: User, symbols: Sequence[str], *, saved: bool = False, problem: str = "") -> Response:
    lines = escape("\n".join(symbols))
    return page(
        "Settings",
        f"""<form class="panel" method="post" action="/settings">
          <h1>Settings</h1>
          <label>Symbols <textarea name="symbols" rows="6" spellcheck="false">{lines}</textarea></label>
          <button>Save</button>
          {'<p class="note" role="status">Saved.</p>' if saved else ""}
          {f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""}
        </form>""",
        user=user,
        status=422 if problem else 200,
    )


def page(
    title: str, content: str, *, script: str = "", user: User | None = None, status: int = 200
) -> Response:
    """Return a page in the layout."""
    navigation = (
        '<nav><a href="/dashboard">Dashboard</a> <a href="/settings">Settings</a></nav>'
        f'<span class="user">{escape(str(user.get("name", "")))}</span>'
        '<button id="logout" type="button">Log out</button>'
        if user
        else ""
    )
    scripts = [name for name in ("session.js" if user else "", script) if name]
    return HTMLResponse(
        LAYOUT.substitute(
            title=escape(title),
            navigation=navigation,
            content=content,
            scripts="".join(f'<script type="module" src="/static/{name}"></script>' for name in scripts),
        ),
        status,
    )


def make_app(backend_origin: str, stream: str, *, protected: Sequence[str] = PROTECTED) -> Starlette:
    """Return the application. Its pages may connect to `stream`, the relay's sockets."""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' {stream}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )

    async def with_policy(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    return Starlette(
        routes=[
            Route("/", first),
            Route("/login", login),
            Route("/dashboard", dashboard),
            Route("/dashboard/watchlist.csv", watchlist_file),
            Route("/settings", settings),
            Route("/settings", save_settings, methods=["POST"]),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ],
        middleware=[
            Middleware(
                PageBoundary,
                protected=protected,
                login="/login",
                home="/dashboard",
                backend=backend_origin,
                access_cookie="access-token",  # with https, the defaults: __Host-…
                refresh_cookie="refresh-token",
                trusted_proxies=["127.0.0.1"],
            ),
            Middleware(BaseHTTPMiddleware, dispatch=with_policy),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the dashboard's pages.")
    parser.add_argument("--backend", default="http://127.0.0.1:9000", help="bff.backend of the relay")
    parser.add_argument("--stream", default="ws://localhost:8001", help="public.stream_url of the relay")
    parser.add_argument("--port", type=int, default=3000)
    options = parser.parse_args()
    try:
        app = make_app(options.backend, options.stream)
    except ConfigurationError as error:
        parser.error(str(error))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", proxy_headers=False)
