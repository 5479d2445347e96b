"""The example's backend: three users, their settings, and a market that publishes prices to the relay.

It replaces your own backend. The relay and the Next.js server know only these routes:

    POST /auth/login    {"email", "password"} → {"accessToken", "refreshToken", "user"}
    POST /auth/refresh  Bearer refresh token  → {"accessToken", "refreshToken"}; a second use ends the session
    POST /auth/logout   Bearer refresh token  → 204, and the session's tokens are refused from now on
    GET  /auth/me       Bearer access token   → {"user"}
    GET  /prices        Bearer access token   → the newest price of each symbol
    GET  /settings      Bearer access token   → this user's settings; PUT replaces them
    GET  /users         Bearer access token   → all users, for the role admin only

    EXAMPLE_SECRET=… RELAY_PUBLISH_KEY=market.… python examples/nextjs/backend.py

Do not deploy it: users and passwords are in this file, and everything else is in memory.
"""

import argparse
import asyncio
import contextlib
import hmac
import os
import random
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.client import Publisher, PublishError

USERS = {
    "ada@example.com": {"name": "Ada Trader", "roles": ["trader"]},
    "ben@example.com": {"name": "Ben Trader", "roles": ["trader"]},
    "root@example.com": {"name": "Root Admin", "roles": ["trader", "admin"]},
}
PASSWORD = "example"  # noqa: S105  # printed in the README
ACCESS_S = 15 * 60
REFRESH_S = 7 * 24 * 3600
TICK_S = 0.5


@dataclass
class Accounts:
    """Sessions and settings. `secret` signs the tokens; the relay checks access tokens with it."""

    secret: str = field(repr=False)
    access_s: int = ACCESS_S
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    _good: dict[str, str] = field(
        default_factory=dict
    )  # of each session, the id of its one good refresh token

    def login(self, email: object, password: object) -> dict[str, Any] | None:
        """Begin a session with an id of its own, so that nobody else can choose one."""
        if email not in USERS or not hmac.compare_digest(str(password).encode(), PASSWORD.encode()):
            return None
        return self._tokens(str(email), secrets.token_urlsafe(16)) | {"user": self.user(str(email))}

    def refresh(self, token: str) -> dict[str, Any] | None:
        """Replace a refresh token. A token that was used before ends its session, because somebody has a copy."""
        claims = self._claims(token, "refresh")
        if claims is None:
            return None
        if self._good[claims["sid"]] != claims["jti"]:
            del self._good[claims["sid"]]
            return None
        return self._tokens(claims["sub"], claims["sid"])

    def logout(self, token: str) -> bool:
        """End the session of a refresh token."""
        claims = self._claims(token, "refresh")
        return claims is not None and self._good.pop(claims["sid"], None) is not None

    def end_all(self) -> None:
        """End every session, as after a change of all passwords."""
        self._good.clear()

    def email_of(self, token: str) -> str | None:
        """Return whose access token this is, if its session goes on."""
        claims = self._claims(token, "access")
        return None if claims is None else str(claims["sub"])

    @staticmethod
    def user(email: str) -> dict[str, Any]:
        """Return what the browser may know of a user."""
        return {"email": email} | USERS[email]

    def _claims(self, token: str, use: str) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(token, self.secret, algorithms=["HS256"])
        except jwt.PyJWTError:
            return None
        return claims if claims["token_use"] == use and claims["sid"] in self._good else None

    def _tokens(self, email: str, session: str) -> dict[str, Any]:
        self._good[session] = secrets.token_urlsafe(16)
        lives = {"access": self.access_s, "refresh": REFRESH_S}
        return {f"{use}Token": self._token(use, email, session, life) for use, life in lives.items()}

    def _token(self, use: str, email: str, session: str, life_s: int) -> str:
        now = int(time.time())
        claims = {
            "sub": email,
            "sid": session,
            "roles": USERS[email]["roles"],
            "token_use": use,
            "iat": now,
            "exp": now + life_s,
            "jti": self._good[session] if use == "refresh" else secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self.secret, algorithm="HS256")


class Market:
    """Five symbols whose prices walk at random. Prices are texts, because floats would change decimals."""

    def __init__(self) -> None:
        self._cents = {
            "BTC-USD": 6_712_345,
            "ETH-USD": 351_020,
            "EUR-USD": 10_842,
            "XAU-USD": 241_265,
            "AAPL": 22_780,
        }

    def prices(self) -> list[dict[str, str]]:
        """Return the newest price of each symbol."""
        return [{"symbol": name, "price": f"{cents / 100:.2f}"} for name, cents in self._cents.items()]

    async def publish(self, url: str, key: str) -> None:
        """Publish every price to the relay, every half second. While the relay is away, the market goes on."""
        async with Publisher(url, key) as publisher:
            while True:
                for symbol in self._cents:
                    step = max(1, self._cents[symbol] // 20_000)
                    self._cents[symbol] += random.randint(-3, 3) * step  # noqa: S311  # a market, no secret
                with contextlib.suppress(PublishError, OSError):
                    quotes = [(f"prices.{quote['symbol']}", quote) for quote in self.prices()]
                    await publisher.publish_many(quotes)
                await asyncio.sleep(TICK_S)


@dataclass
class Routes:
    """The answers to the relay and to Next.js."""

    accounts: Accounts
    market: Market

    async def login(self, request: Request) -> Response:
        """POST /auth/login."""
        body = await request.json()
        answer = self.accounts.login(body.get("email"), body.get("password"))
        return _problem(401, "invalid_credentials") if answer is None else JSONResponse(answer)

    async def refresh(self, request: Request) -> Response:
        """POST /auth/refresh."""
        answer = self.accounts.refresh(_bearer(request))
        return _problem(401, "invalid_grant") if answer is None else JSONResponse(answer)

    async def logout(self, request: Request) -> Response:
        """POST /auth/logout."""
        self.accounts.logout(_bearer(request))
        return Response(status_code=204)

    async def me(self, request: Request) -> Response:
        """GET /auth/me."""
        email = self.accounts.email_of(_bearer(request))
        return _no_session() if email is None else JSONResponse({"user": self.accounts.user(email)})

    async def prices(self, request: Request) -> Response:
        """GET /prices."""
        email = self.accounts.email_of(_bearer(request))
        return _no_session() if email is None else JSONResponse({"prices": self.market.prices()})

    async def settings(self, request: Request) -> Response:
        """GET and PUT /settings."""
        email = self.accounts.email_of(_bearer(request))
        if email is None:
            return _no_session()
        if request.method == "PUT":
            note = (await request.json()).get("note")
            if not isinstance(note, str) or len(note) > 200:
                return _problem(422, "note_too_long")
            self.accounts.settings[email] = {"note": note}
        return JSONResponse(self.accounts.settings.get(email, {"note": ""}))

    async def users(self, request: Request) -> Response:
        """GET /users."""
        email = self.accounts.email_of(_bearer(request))
        if email is None:
            return _no_session()
        if "admin" not in USERS[email]["roles"]:
            return _problem(403, "forbidden")
        return JSONResponse({"users": [self.accounts.user(one) for one in USERS]})


def create_app(accounts: Accounts, market: Market, *, relay: str = "", publish_key: str = "") -> Starlette:
    """Return the application. With a publisher's key, the market publishes while it runs."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(market.publish(relay, publish_key)) if publish_key else None
        yield
        if task is not None:
            task.cancel()

    routes = Routes(accounts, market)
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/auth/login", routes.login, methods=["POST"]),
            Route("/auth/refresh", routes.refresh, methods=["POST"]),
            Route("/auth/logout", routes.logout, methods=["POST"]),
            Route("/auth/me", routes.me),
            Route("/prices", routes.prices),
            Route("/settings", routes.settings, methods=["GET", "PUT"]),
            Route("/users", routes.users),
        ],
    )


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _problem(status: int, code: str) -> Response:
    return JSONResponse({"error": code}, status_code=status)


def _no_session() -> Response:
    return _problem(401, "invalid_session")


def main() -> None:
    """Serve on loopback until Ctrl-C. The access log shows each call of the relay and of Next.js."""
    parser = argparse.ArgumentParser(description="The backend of the Next.js example.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--relay", default="http://127.0.0.1:8002", help="the relay's internal address")
    options = parser.parse_args()
    secret, key = os.environ.get("EXAMPLE_SECRET", ""), os.environ.get("RELAY_PUBLISH_KEY", "")
    if len(secret) < 32 or not key:
        parser.error("set EXAMPLE_SECRET (32 characters or more) and RELAY_PUBLISH_KEY; see README.md")
    app = create_app(Accounts(secret), Market(), relay=options.relay, publish_key=key)
    uvicorn.run(app, host="127.0.0.1", port=options.port, server_header=False)


if __name__ == "__main__":
    main()
