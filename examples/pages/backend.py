"""The backend of this example: the demo's log-in, and a watchlist for each user.

    python examples/pages/backend.py --port 9000 --secret-file FILE

It decides at each call what a user may see. Do not deploy it: user and password are in its source.
"""

import argparse
import re
from pathlib import Path

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.core.bearer import bearer_token
from relay.demo.backend import Accounts, create_app, read_secret

SYMBOL = re.compile(r"[A-Z]{2,8}-[A-Z]{2,5}")
MAX_SYMBOLS = 20


def watchlist_route(accounts: Accounts) -> Route:
    """Return the route: GET reads the user's symbols, PUT replaces them."""
    symbols = ["BTC-USD", "ETH-USD", "SOL-USD", "EUR-USD"]  # of the demo's one user

    async def watchlist(request: Request) -> Response:
        token = bearer_token(request.headers.getlist("authorization"))
        if not isinstance(token, str) or accounts.session_of(token) is None:
            return JSONResponse({"message": "There is no valid session."}, 401)
        if request.method == "PUT":
            wanted = await request.json()
            if not wanted or len(wanted) > MAX_SYMBOLS or not all(SYMBOL.fullmatch(one) for one in wanted):
                return JSONResponse({"message": f"Write 1 to {MAX_SYMBOLS} symbols like BTC-USD."}, 422)
            symbols[:] = wanted
        return JSONResponse(symbols)

    return Route("/watchlist", watchlist, methods=["GET", "PUT"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The backend of the example.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--secret-file", type=Path, required=True, help="the secret that signs the tokens")
    options = parser.parse_args()
    accounts = Accounts(read_secret(options.secret_file))
    app = create_app(accounts)
    app.router.routes.append(watchlist_route(accounts))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")
