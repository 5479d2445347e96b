"""The demo's backend, a process of its own: it logs one user in and signs JWTs.

It replaces an application's real backend, of which the relay knows only these routes:

    POST /auth/login    {"email", "password"} → {"accessToken", "refreshToken", "user"}
    POST /auth/refresh  Bearer refresh token  → {"accessToken", "refreshToken"}; a second use ends the session
    GET  /auth/me       Bearer access token   → {"user"}
    POST /auth/logout   Bearer access token   → 204, and the session's tokens are invalid here
    GET  /account       Bearer access token   → the user's account; the relay removes two of its fields
    GET  /received      Bearer access token   → what this backend received in that session (only a demo has this)

Access and refresh tokens are signed with the same secret, and `token_use` tells them apart. A verifier must check it:
otherwise a refresh token of 7 days would be accepted in place of an access token of 15 minutes.

    python -m relay.demo.backend --port 0 --secret-file FILE

prints its address as the first line. Do not deploy it: user and password are in this file.
"""

import argparse
import hmac
import json
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.core.bearer import bearer_token
from relay.core.errors import ConfigurationError, Refusal
from relay.demo.journal import Journal, TokenSeen, fingerprint

EMAIL, PASSWORD = "demo@example.com", "demo"
USER = {"name": "Demo Trader", "email": EMAIL, "roles": ["trader"]}
SUBJECT = "demo"
ACCOUNT = {
    "name": USER["name"],
    "email": EMAIL,
    "nationalId": "DEMO-000-11-2222",
    "accounts": [
        {"id": "ACC-1001", "currency": "USD", "balance": "25130.40", "internalScore": 712},
        {"id": "ACC-1002", "currency": "EUR", "balance": "1840.00", "internalScore": 655},
    ],
}
"""`nationalId` and `internalScore` are for the backend's own use: the demo's relay removes them."""

ACCESS_S = 15 * 60
REFRESH_S = 7 * 24 * 3600

MAX_BODY_BYTES = 4096
MIN_SECRET_BYTES = 32
"""A key for HS256 has at least the size of the hash (RFC 7518 §3.2)."""


_NO_STORE = {"Cache-Control": "no-store"}


class Accounts:
    """The one user's sessions. `secret` signs the tokens, and access tokens live `access_s` seconds."""

    def __init__(self, secret: bytes, *, access_s: int = ACCESS_S) -> None:
        self._secret = secret
        self._access_s = access_s
        self._ended: dict[str, float] = {}
        self._refresh_ids: dict[str, str] = {}  # of each session, the refresh token that is good now

    def __repr__(self) -> str:
        return "Accounts()"

    def login(self, email: str, password: str, *, now: float) -> dict[str, Any] | None:
        """Start a session. Each log-in has a new `sid`, so that an attacker can't choose one (session fixation)."""
        if not (_same(password, PASSWORD) & _same(email, EMAIL)):
            return None
        return self._tokens(secrets.token_urlsafe(16), now) | {"user": USER}

    def refresh(self, token: str, *, now: float) -> dict[str, Any] | None:
        """Return new tokens for a refresh token. A token that was used before ends its session: it was copied.

        After a restart no token is known as used, so the first one that comes is good.
        """
        claims = self._claims(token, "refresh")
        if claims is None:
            return None
        session = str(claims["sid"])
        if self._refresh_ids.get(session, claims["jti"]) != claims["jti"]:
            self.logout(session, now=now)
            return None
        return self._tokens(session, now)

    def session_of(self, token: str) -> str | None:
        """Return the session of a valid access token."""
        claims = self._claims(token, "access")
        return None if claims is None else str(claims["sid"])

    def seen(self, token: str) -> tuple[str, TokenSeen] | None:
        """Return the session of a valid token of either kind, and how the token may be shown."""
        for use in ("access", "refresh"):
            if claims := self._claims(token, use):
                seen = TokenSeen(use=use, fingerprint=fingerprint(token), expires_at=claims["exp"])
                return str(claims["sid"]), seen
        return None

    def _claims(self, token: str, use: str) -> dict[str, Any] | None:
        """Return the claims of a valid token of this kind, if its session has not ended."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                options={"require": ["exp", "iat", "sub", "sid", "token_use", "jti"]},
            )
        except jwt.PyJWTError:
            return None
        session = claims["sid"]
        if claims["token_use"] != use or not isinstance(session, str) or session in self._ended:
            return None
        return claims

    def logout(self, session: str, *, now: float) -> None:
        """End a session. It is remembered until all its tokens have expired."""
        self._ended = {ended: until for ended, until in self._ended.items() if until > now}
        self._ended[session] = now + REFRESH_S
        self._refresh_ids.pop(session, None)

    def _tokens(self, session: str, now: float) -> dict[str, Any]:
        self._refresh_ids[session] = secrets.token_urlsafe(16)
        return {
            "accessToken": self._token("access", session, now, self._access_s),
            "refreshToken": self._token("refresh", session, now, REFRESH_S),
        }

    def _token(self, use: str, session: str, now: float, life_s: int) -> str:
        claims = {
            "sub": SUBJECT,
            "name": USER["name"],
            "roles": USER["roles"],
            "sid": session,
            "token_use": use,
            "iat": int(now),
            "exp": int(now) + life_s,
            "jti": self._refresh_ids[session],
        }
        return jwt.encode(claims, self._secret, algorithm="HS256")


def _same(given: str, expected: str) -> bool:
    # surrogatepass: JSON can contain a lone surrogate, which is a wrong password and not a server error
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())


def create_app(accounts: Accounts) -> Starlette:
    """Return the routes."""
    journal = Journal()

    async def login(request: Request) -> Response:
        body = await _read_object(request)
        if body is None:
            return _problem(400, "invalid_request", 'Send JSON: {"email": "…", "password": "…"}.')
        email, password = body.get("email"), body.get("password")
        if not isinstance(email, str) or not isinstance(password, str):
            return _problem(400, "invalid_request", "email and password must be strings.")
        answer = accounts.login(email, password, now=time.time())
        if answer is None:
            return _problem(401, "invalid_credentials", "The name or the password is wrong.")
        return JSONResponse(answer, headers=_NO_STORE)

    async def refresh(request: Request) -> Response:
        token = bearer_token(request.headers.getlist("authorization"))
        answer = None if isinstance(token, Refusal) else accounts.refresh(token, now=time.time())
        return _no_session() if answer is None else JSONResponse(answer, headers=_NO_STORE)

    async def logout(request: Request) -> Response:
        session = _session(request)
        if session is None:
            return _no_session()
        accounts.logout(session, now=time.time())
        return Response(status_code=204)

    def of_session(answer: Callable[[str], object]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            session = _session(request)
            return _no_session() if session is None else JSONResponse(answer(session), headers=_NO_STORE)

        return endpoint

    def _session(request: Request) -> str | None:
        token = bearer_token(request.headers.getlist("authorization"))
        return None if isinstance(token, Refusal) else accounts.session_of(token)

    noted = partial(_noted, accounts=accounts, journal=journal)
    return Starlette(
        routes=[
            Route("/auth/login", noted(login), methods=["POST"]),
            Route("/auth/refresh", noted(refresh), methods=["POST"]),
            Route("/auth/me", noted(of_session(lambda _session: {"user": USER})), methods=["GET"]),
            Route("/auth/logout", noted(logout), methods=["POST"]),
            Route("/account", noted(of_session(lambda _session: ACCOUNT)), methods=["GET"]),
            Route(
                "/received", of_session(lambda session: {"requests": journal.of(session)}), methods=["GET"]
            ),
        ]
    )


def _noted(
    endpoint: Callable[[Request], Awaitable[Response]], *, accounts: Accounts, journal: Journal
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint with an entry of the journal for each request of a session."""

    async def answer(request: Request) -> Response:
        token = bearer_token(request.headers.getlist("authorization"))
        came = None if isinstance(token, Refusal) else accounts.seen(token)
        response = await endpoint(request)
        body = json.loads(bytes(response.body)) if response.body else None
        issued = accounts.seen(body["accessToken"]) if body and "accessToken" in body else None
        if session := issued or came:
            journal.note(
                session[0],
                request=f"{request.method} {request.url.path}",
                headers=request.headers,
                bearer=came and came[1],
                status=response.status_code,
                body=body,
                issued=issued and issued[1],
            )
        return response

    return answer


async def _read_object(request: Request) -> dict[str, Any] | None:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return None
        value = json.loads(body)
    except (ClientDisconnect, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _problem(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, status_code=status)


def _no_session() -> Response:
    return _problem(401, "invalid_session", "There is no valid session. Log in again.")


def read_secret(path: Path) -> bytes:
    """Return the secret in `path`, without white space around it.

    Raises:
        ConfigurationError: if the file can't be read, or the secret is too short.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"The secret file {path} can't be read: {error.strerror}.") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"The secret in {path} has {len(secret)} bytes; HS256 needs at least {MIN_SECRET_BYTES}."
        )
    return secret


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m relay.demo.backend", description="The demo's backend.")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free port")
    parser.add_argument(
        "--secret-file", type=Path, required=True, help="the secret that signs the tokens, 32 bytes or more"
    )
    parser.add_argument(
        "--access-s", type=int, default=ACCESS_S, help="seconds that an access token lives (default: 900)"
    )
    options = parser.parse_args(arguments)
    try:
        accounts = Accounts(read_secret(options.secret_file), access_s=options.access_s)
        listener = _listen(options.port)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    config = uvicorn.Config(
        create_app(accounts), log_level="warning", access_log=False, lifespan="off", server_header=False
    )
    with listener:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn raises the signal again once it has stopped
            return 130
    return 0


def _listen(port: int) -> socket.socket:
    """Open the listening socket, before the address is printed: a reader of the address may connect at once."""
    if not 0 <= port <= 65_535:
        raise ConfigurationError(f"--port {port} is not a port; use one from 0 to 65535.")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"Port {port} can't be used: {error.strerror}.") from None
    return listener


if __name__ == "__main__":
    sys.exit(main())
