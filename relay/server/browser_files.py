"""The browser client's files, below /client/: compressed once, and sent again only when they have changed."""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_SCRIPT: Final = "text/javascript"
_TYPES: Final = "application/typescript"
_FILES: Final = {
    **{
        f"relay-{part}{form}.js": (f"dist/relay-{part}{form}.js", _SCRIPT)
        for part in ("client", "session", "react")
        for form in ("", ".min")
    },
    "relay-client.d.ts": ("src/relay-client.d.ts", _TYPES),
    "relay-react.d.ts": ("src/react.d.ts", _TYPES),
}
"""File and media type by the last part of the path."""


def browser_routes() -> list[Route]:
    """Return a route for each file. A browser asks at each visit whether its copy is the newest one."""
    return [_route(name, file, media_type) for name, (file, media_type) in _FILES.items()]


def _route(name: str, file: str, media_type: str) -> Route:
    async def answer(request: Request) -> Response:
        plain, packed, digest = _read(file)
        is_packed = _takes_gzip(request)
        tag = f'"{digest}{"-gzip" if is_packed else ""}"'
        headers = {"Cache-Control": "no-cache", "ETag": tag, "Vary": "Accept-Encoding"}
        tags = request.headers.get("if-none-match", "").split(",")
        if tag in (each.strip().removeprefix("W/") for each in tags):  # a weak comparison (RFC 9110 §13.1.2)
            return Response(status_code=304, headers=headers)
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        return Response(packed if is_packed else plain, media_type=media_type, headers=headers)

    return Route(f"/client/{name}", answer, methods=["GET"])


@cache
def _read(file: str) -> tuple[bytes, bytes, str]:
    """Return a file as it is, and compressed, with a digest of its content."""
    plain = files("relay").joinpath("browser", file).read_bytes()
    return plain, gzip.compress(plain, 9, mtime=0), hashlib.sha256(plain).hexdigest()[:16]


def _takes_gzip(request: Request) -> bool:
    """Tell whether the client takes gzip (RFC 9110 §12.5.3)."""
    for coding in ",".join(request.headers.getlist("accept-encoding")).lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() in ("gzip", "x-gzip"):
            return weight.replace(" ", "").removeprefix("q=").strip("0.") != "" or not weight.strip()
    return False
