"""The two HTTP applications, public and internal: whose routes they have, and what is left over."""

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bff.backend import Backend
from relay.bff.routes import BffOptions, BffParts, bff_routes
from relay.core.errors import Refusal
from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.ingest.openapi import DOCUMENT
from relay.ingest.routes import ingest_routes
from relay.issuer.routes import RouteOptions, issuer_routes
from relay.net.addresses import parse_networks
from relay.net.admission import PacedRequests
from relay.ops.health import health_routes
from relay.server.keys import published_keys
from relay.server.operators import operator_routes
from relay.server.options import (
    cookie_options,
    csrf_options,
)
from relay.server.parts import Parts
from relay.server.session_verifier import session_cookies
from relay.sessions.base import Session
from relay.web.answers import error_answer, json_answer
from relay.web.client_identity import client_reader
from relay.web.internal_only import InternalOnly

log = structlog.get_logger("relay")


def public_app(parts: Parts, pages: Sequence[BaseRoute]) -> Starlette:
    """Return what browsers reach: issuer, log-in, the browser client, and `pages`."""
    settings = parts.settings
    client_of = client_reader(parse_networks(settings.public.trusted_proxies))
    csrf = csrf_options(settings)
    access, refresh = cookie_options(settings)
    routes: list[BaseRoute] = list(
        issuer_routes(
            parts.issuer,
            RouteOptions(
                csrf=csrf,
                session=session_cookies(settings),
                cookies=(access, refresh),
                public_origin=settings.public.url,
                client_of=client_of,
            ),
            partial(published_keys, parts.keys),
        )
    )
    if parts.backend is not None:
        options = BffOptions(
            csrf=csrf,
            session=session_cookies(settings),
            access_cookie=access,
            refresh_cookie=refresh,
            ref_key=settings.session.ref_key.get_secret_value().encode(),
        )
        routes += bff_routes(options, _bff_parts(parts, parts.backend, client_of))
    routes.append(Route("/client/relay-client.js", _browser_client))
    routes += pages
    return _application(
        routes,
        Middleware(PacedRequests, admission_queue=parts.admission_queue),
    )


def internal_app(parts: Parts) -> Starlette:
    """Return what backends and operators reach: publishing, health, and what needs an operator's key."""
    listen = parts.settings.listen
    client_of = client_reader(())
    return _application(
        [
            *health_routes(lambda: "The relay is stopping." if parts.stopping else None),
            *(
                (
                    *ingest_routes(
                        parts.ingest, client_of, subscriber_count=parts.fanout.hub.subscriber_count
                    ),
                    parts.ingest_sockets.route,
                )
                if parts.role.streams
                else ()
            ),
            *operator_routes(parts, client_of),
            Route("/openapi.json", _openapi),
        ],
        Middleware(InternalOnly, hosts=frozenset(listen.internal_hosts)),
    )


def _application(routes: Sequence[BaseRoute], middleware: Middleware) -> Starlette:
    app = Starlette(
        routes=routes,
        middleware=[middleware],
        exception_handlers={404: _not_found, 405: _not_allowed, 500: _failed},
    )
    # a path has one spelling; a redirect would name the host that the client named
    app.router.redirect_slashes = False
    return app


def _bff_parts(parts: Parts, backend: Backend, client_of: Callable[[Request], Client]) -> BffParts:
    limits = parts.issuer.limits

    def limit_address(address: str) -> tuple[Refusal, float] | None:
        limited = limits.address(address)
        return None if limited is None else (limited.refusal, limited.retry_after_s)

    def limit_login(address: str, account: str) -> tuple[Refusal, float] | None:
        limited = limits.login(address, account)
        return None if limited is None else (limited.refusal, limited.retry_after_s)

    async def authenticate(credential: str) -> Session | Refusal:
        return await parts.issuer.authenticate(credential, now=time.time())

    async def session_of(credential: str) -> Session | Refusal:
        grace_s = parts.settings.session.max_s
        return await parts.issuer.authenticate(credential, now=time.time(), grace_s=grace_s)

    async def end_session(session: Session) -> None:
        target = Target(kind=Kind.SESSION, name=session.ref)
        await parts.revoker.revoke(target, user=session.subject, client=Client())
        parts.verifier.forget(session.ref)  # after the revocation is recorded, see `SessionVerifier.forget`

    return BffParts(
        backend=backend,
        auditor=parts.auditor,
        client_of=client_of,
        limit_address=limit_address,
        limit_login=limit_login,
        authenticate=authenticate,
        session_of=session_of,
        end_session=end_session,
    )


# what belongs to no shell


async def _browser_client(_request: Request) -> Response:
    script = files("relay").joinpath("browser/relay-client.js").read_bytes()
    return Response(script, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


async def _openapi(_request: Request) -> Response:
    return json_answer(200, DOCUMENT)


async def _not_found(_request: Request, _error: Exception) -> Response:
    return error_answer(404, "not_found", "There is nothing here.")


async def _not_allowed(_request: Request, error: Exception) -> Response:
    answer = error_answer(405, "method_not_allowed", "This address does not take this method.")
    if isinstance(error, HTTPException):
        answer.headers.update(error.headers or {})  # Allow: what it does take (RFC 9110 §15.5.6)
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    incident = secrets.token_hex(4)
    log.error("request failed", incident=incident, path=request.url.path, exc_info=error)
    return error_answer(
        500, "internal_error", f"The relay met an error of its own ({incident}).", retryable=True
    )
