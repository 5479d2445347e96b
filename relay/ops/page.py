"""GET /ops: the ops page. Its files hold no data, so they need no key. All data comes from routes that need a key.

The operator types a key, which the page keeps in a variable and sends as a Bearer header. It sets no cookie, which a
request of another page could carry, and stores nothing. The key is gone when the tab is closed.
"""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""No inline script or style, nothing from another origin, no form to another page, and no text parsed as HTML."""

_FILES = {"index.html": "text/html", "ops.css": "text/css"} | dict.fromkeys(
    ("page.js", "charts.js", "freshness.js", "nodes.js", "questions.js", "records.js"), "text/javascript"
)


def page_routes() -> list[Route]:
    """Return the page's routes."""

    async def page(_request: Request) -> Response:
        response = _file("index.html")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        return _file(name) if name in _FILES and name != "index.html" else Response(status_code=404)

    return [Route("/ops", page, methods=["GET"]), Route("/ops/{name}", asset, methods=["GET"])]


def _file(name: str) -> Response:
    content = files("relay").joinpath("ops/static", name).read_bytes()
    return Response(content, media_type=_FILES[name], headers={"Cache-Control": "no-cache"})
