"""A separate service with one endpoint, which accepts scoped tokens only.

    python examples/service/reports.py --issuer http://127.0.0.1:8000 --url http://127.0.0.1:9100/v1/export

The README in this folder has the relay's settings, and calls from the command line and from a page.
"""

import argparse
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from relay.verify import Claims, ConfigurationError, ScopedTokenMiddleware, Verifier
from relay.verify.sqlite import SqliteSingleUse


async def export(request: Request) -> JSONResponse:
    """Answer a request whose token the middleware has checked and used up."""
    claims: Claims = request.state.relay_claims
    return JSONResponse({"user": claims.subject, "rows": [["BTC-USD", 3], ["ETH-USD", 12]]})


def make_app(issuer: str, url: str, *, origin: str, used_tokens: Path) -> Starlette:
    """Return the service. `issuer` is the relay's public.url; pages of `origin` may call."""
    single_use = SqliteSingleUse.open(used_tokens)
    verifier = Verifier(
        issuer=issuer,
        audience=url,
        keys=f"{issuer}/.well-known/jwks.json",
        single_use=single_use,
        origins={origin},
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await verifier.aclose()
        await single_use.aclose()

    path = urlsplit(url).path
    return Starlette(
        routes=[Route(path, export, methods=["POST"])],
        lifespan=lifespan,
        middleware=[
            # before the token check, because a browser's preflight has no token
            Middleware(
                CORSMiddleware,
                allow_origins=[origin],
                allow_methods=["POST"],
                allow_headers=["Authorization"],
            ),
            Middleware(ScopedTokenMiddleware, verifier=verifier, paths=(path,)),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export reports to callers with a scoped token.")
    parser.add_argument("--issuer", default="http://127.0.0.1:8000", help="public.url of the relay")
    parser.add_argument("--url", default="http://127.0.0.1:9100/v1/export", help="this endpoint's URL there")
    parser.add_argument("--origin", help="origin of the pages that may call; default: the issuer's")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--used-tokens", type=Path, default=Path("used-tokens.db"))
    options = parser.parse_args()
    try:
        app = make_app(
            options.issuer,
            options.url,
            origin=options.origin or options.issuer,
            used_tokens=options.used_tokens,
        )
    except ConfigurationError as error:
        parser.error(str(error))
    uvicorn.run(app, host="127.0.0.1", port=options.port)
