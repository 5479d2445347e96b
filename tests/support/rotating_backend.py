"""A backend that rotates its refresh tokens and takes the second use of one for theft, as real ones do."""

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.net.sockets import bind
from relay.web.client_link import ClientLink
from relay.web.uvicorn_runner import HttpServer
from tests.support.relay_process import SECRET


@dataclass
class Login:
    """A log-in as the backend knows it."""

    user: str
    sid: str
    refresh_token: str
    alive: bool = True


class RotatingBackend:
    """`refreshes` counts the calls with each refresh token. `access_s` is the life of new access tokens.

    `answer` replaces the answer to a refresh, without a look at the token, while it is set; with `cuts` the connection
    is cut instead. `hold` keeps callers of the refresh route waiting, after their token was looked at. `ahead_s` is by
    how much its clock is ahead. `most_at_once` counts the refreshes that ran at one time.
    """

    def __init__(self) -> None:
        self.logins: dict[str, Login] = {}
        self.refreshes: Counter[str] = Counter()
        self.logouts: list[str] = []
        self.access_s = 900
        self.rotates = True
        self.refused: set[str] = set()
        self.refuses_all = False
        self.bodies: list[bytes] = []
        self.answer: Callable[[], Response] | None = None
        self.cuts = False
        self.logout_status = 204
        self.ahead_s = 0
        self.at_once = self.most_at_once = 0
        self._owners: dict[str, Login] = {}
        self._open = asyncio.Event()
        self._open.set()
        self._called = asyncio.Condition()

    def hold(self) -> None:
        """Leave the callers of the refresh route without an answer from now on."""
        self._open.clear()

    def release(self) -> None:
        """Answer those who wait, and those who come."""
        self._open.set()

    async def called(self, times: int) -> None:
        """Wait until there were so many refreshes."""
        async with asyncio.timeout(20), self._called:
            await self._called.wait_for(lambda: self.refreshes.total() >= times)

    def access(self, login: Login, **claims: Any) -> str:
        """Return a new access token."""
        now = int(time.time()) + self.ahead_s
        payload = {
            "sub": login.user,
            "roles": ["trader"],
            "sid": login.sid,
            "token_use": "access",
            "iat": now,
            "exp": now + self.access_s,
            "jti": secrets.token_hex(4),
        }
        return jwt.encode(payload | claims, SECRET, algorithm="HS256")

    async def login(self, request: Request) -> Response:
        """POST /auth/login."""
        body = await request.json()
        login = Login(user=body["email"], sid=secrets.token_hex(8), refresh_token=self._new_refresh())
        self.logins[login.user] = login
        self._owners[login.refresh_token] = login
        return JSONResponse(
            {
                "accessToken": self.access(login),
                "refreshToken": login.refresh_token,
                "user": {"name": login.user},
            }
        )

    async def refresh(self, request: Request) -> Response:
        """POST /auth/refresh."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._refresh(request)
        finally:
            self.at_once -= 1

    async def _refresh(self, request: Request) -> Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        async with self._called:
            self.refreshes[token] += 1
            self._called.notify_all()
        if self.answer is not None or self.cuts:
            await self._open.wait()
            if self.answer is not None:
                return self.answer()
            link: ClientLink = request.state.presence
            await link.cut()
            return Response()
        login = self._owners.get(token)
        if login is None or not login.alive or login.refresh_token != token:
            if login is not None:
                login.alive = False  # a spent token: somebody has a copy
            return JSONResponse({"error": "invalid_grant"}, status_code=401)
        body = {}
        if self.rotates:
            login.refresh_token = self._new_refresh()
            self._owners[login.refresh_token] = login
            body["refreshToken"] = login.refresh_token
        await self._open.wait()
        return JSONResponse(body | {"accessToken": self.access(login)})

    async def me(self, request: Request) -> Response:
        """GET /auth/me."""
        token = request.headers["authorization"].removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, SECRET, algorithms=["HS256"], leeway=abs(self.ahead_s) + 1)
        except jwt.PyJWTError:
            return Response(status_code=401)
        self.bodies.append(await request.body())
        if token in self.refused or self.refuses_all:
            return Response(status_code=401)
        return JSONResponse({"name": claims["sub"]} | ({} if is_proxied(request) else {"echo": token}))

    async def logout(self, request: Request) -> Response:
        """POST /auth/logout."""
        self.logouts.append(request.headers["authorization"].removeprefix("Bearer "))
        return Response(status_code=self.logout_status)

    @staticmethod
    def _new_refresh() -> str:
        return f"refresh-{secrets.token_hex(16)}"


def is_proxied(request: Request) -> bool:
    """Tell whether a call came through the API proxy, whose answers must not hold a token."""
    return request.url.path == "/users"


@contextlib.asynccontextmanager
async def rotating_backend(port: int) -> AsyncIterator[RotatingBackend]:
    """Run such a backend on a port of this machine."""
    backend = RotatingBackend()
    routes = [
        Route("/auth/login", backend.login, methods=["POST"]),
        Route("/auth/refresh", backend.refresh, methods=["POST"]),
        Route("/auth/me", backend.me),
        Route("/users", backend.me, methods=["GET", "POST"]),
        Route("/auth/logout", backend.logout, methods=["POST"]),
    ]
    sock = bind(f"127.0.0.1:{port}", setting="the test's backend")
    server = HttpServer(Starlette(routes=routes), sock)
    running = asyncio.create_task(server.run())
    await server.started()
    try:
        yield backend
    finally:
        backend.release()
        server.stop()
        await running
