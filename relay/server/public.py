"""The public HTTP application: tokens, log-in and log-out, the browser client, and further pages."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from relay.bff.backend import Backend
from relay.bff.me import MeParts, me_route
from relay.bff.refresh_route import refresh_route
from relay.bff.routes import BffOptions, BffParts, bff_routes
from relay.core.errors import Refusal
from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.issuer.routes import RouteOptions, issuer_routes
from relay.net.addresses import parse_networks
from relay.net.admission import PacedRequests
from relay.server.application import application
from relay.server.browser_files import browser_routes
from relay.server.keys import published_keys
from relay.server.options import ref_key
from relay.server.parts import Parts
from relay.server.session_refresh import make_renewal
from relay.server.session_verifier import own_cookies
from relay.sessions.base import Session
from relay.sessions.life import kept_until
from relay.web.bounded_protocol import busy_answer
from relay.web.client_identity import client_reader
from relay.web.cors import Cors
from relay.web.endpoints import DirectRoutes


def public_app(parts: Parts, pages: Sequence[BaseRoute]) -> Starlette:
    """Return the application that browsers reach; `pages` are further routes of it."""
    settings = parts.settings
    client_of = client_reader(parse_networks(settings.public.trusted_proxies))
    csrf = parts.csrf
    cookies = own_cookies(settings)
    renewal = None
    if parts.refresher is not None:
        renewal = make_renewal(settings, parts.refresher, csrf=csrf, client_of=client_of)
    routes: list[BaseRoute] = list(
        issuer_routes(
            parts.issuer,
            RouteOptions(
                csrf=csrf,
                cookies=cookies,
                public_origin=settings.public.url,
                session_within_s=settings.session.upstream.timeout_s if settings.session.upstream else None,
                client_of=client_of,
                renewal=renewal,
            ),
            partial(published_keys, parts.keys),
        )
    )
    if parts.backend is not None:
        options = BffOptions(
            csrf=csrf,
            cookies=cookies,
            ref_key=ref_key(settings),
            login_names=settings.bff.login_names,
            login_fields=settings.bff.login_fields,
        )
        bff_parts = _bff_parts(parts, parts.backend, client_of)
        routes += bff_routes(options, bff_parts)
        if renewal is not None:
            routes.append(refresh_route(options, bff_parts, renewal))
        routes.append(
            me_route(
                MeParts(
                    backend=parts.backend,
                    tokens=parts.tokens,
                    auditor=parts.auditor,
                    client_of=client_of,
                    limit_address=parts.issuer.limits.proxy_address,
                    limit_session=parts.issuer.limits.proxy_session,
                    cookies=cookies,
                )
            )
        )
    if parts.proxy is not None:
        # the router compares a decoded path; the proxy looks at the one that came
        routes.append(Route("/api/proxy/{path:path}", parts.proxy))
    routes += browser_routes()
    routes += pages
    return application(
        routes,
        Middleware(Cors, allows=csrf.may_read),  # first: a page must be able to read when to come back
        Middleware(PacedRequests, shedder=parts.shedder, refuse=busy_answer),
        Middleware(DirectRoutes, routes=routes),
    )


def _bff_parts(parts: Parts, backend: Backend, client_of: Callable[[Request], Client]) -> BffParts:
    async def authenticate(credential: str) -> Session | Refusal:
        # the token comes from the backend itself, so it shares no budget with what browsers send
        return await parts.issuer.authenticate(credential, now=time.time(), caller="bff.backend")

    async def session_of(credential: str) -> Session | Refusal:
        grace_s = parts.settings.session.max_s
        return await parts.issuer.authenticate(credential, now=time.time(), grace_s=grace_s)

    async def end_session(session: Session) -> None:
        target = Target(kind=Kind.SESSION, name=session.ref)
        await parts.revoker.revoke(
            target,
            user=session.subject,
            client=Client(),
            # the backend's clock may be ahead: a session without an id is found by its user and its time
            at=session.issued_at,
            until=kept_until(session, leeway_s=parts.settings.session.leeway_s),
        )

    return BffParts(
        backend=backend,
        auditor=parts.auditor,
        client_of=client_of,
        limit_address=parts.issuer.limits.address,
        limit_login=parts.issuer.limits.login,
        give_back_login=parts.issuer.limits.give_back_login,
        authenticate=authenticate,
        session_of=session_of,
        end_session=end_session,
        refresher=parts.refresher,
    )
