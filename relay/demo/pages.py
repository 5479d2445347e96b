"""The demo's two pages, and two routes that only the demo has: the market's name, and the audit log's last records."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay import __version__
from relay.sessions.cookies import SessionCookies
from relay.web.answers import json_answer
from relay.web.cookies import read_cookie

MAX_EVENTS = 100
TAIL_BYTES = 262_144
"""Bytes that are read from the end of the audit log; a hundred records have about 80 KB."""

_FILES = {"demo.css": "text/css"} | dict.fromkeys(
    ("demo.js", "account.js", "chart.js", "freshness.js", "proof.js", "text.js", "tokens.js"),
    "text/javascript",
)


def demo_pages(
    *, audit_path: Path, source: str, symbols: int, stream_url: str, cookies: SessionCookies
) -> Sequence[BaseRoute]:
    """Return the pages' routes. The page with prices may connect to `stream_url`.

    `source` is the market's name, and `symbols` how many it has; 0 if nobody knows.

    A script can't see whether there is a session, which is in one of `cookies`: they are HttpOnly. The refresh cookie
    alone is a session too. `/demo/info` says whether the browser sent one, so that the page asks for no token without
    it. The account page goes to the log-in without one.
    """

    def has_session(request: Request) -> bool:
        return isinstance(read_cookie(request, cookies), str)

    async def page(_request: Request) -> Response:
        return _page("index.html", f"'self' {stream_url}")

    async def account(request: Request) -> Response:
        if not has_session(request):
            return Response(status_code=307, headers={"Location": "/?returnTo=/account"})
        return _page("account.html", "'self'")

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        return _file(name, _FILES[name]) if name in _FILES else Response(status_code=404)

    async def info(request: Request) -> Response:
        known = {"source": source, "symbols": symbols, "version": __version__}
        return json_answer(200, known | {"has_session": has_session(request)})

    def audit(request: Request) -> Response:  # not async: Starlette reads the file on a thread
        text = request.query_params.get("last", "20")
        count = min(int(text), MAX_EVENTS) if text.isascii() and text.isdigit() and len(text) < 6 else 20
        return json_answer(200, {"events": _last_events(audit_path, count)})

    return [
        Route("/", page),
        Route("/account", account),
        Route("/demo/info", info),
        Route("/demo/audit", audit),
        Route("/demo/{name}", asset),
    ]


def _page(name: str, connect: str) -> Response:
    response = _file(name, "text/html")
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src {connect}; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return response


def _file(name: str, media_type: str) -> Response:
    content = files("relay").joinpath("demo/static", name).read_bytes()
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


def _last_events(path: Path, count: int) -> list[object]:
    if count == 0:
        return []
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size - TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
    if start:
        lines = lines[1:]  # cut in the middle
    return [json.loads(line) for line in lines[:-1][-count:]]
