"""The API proxy, made of the settings."""

import time
from urllib.parse import urlsplit

from starlette.requests import Request

from relay.audit.base import Auditor
from relay.bff.proxy.access import AccessTokens, CookieAccess
from relay.bff.proxy.call import CallOptions
from relay.bff.proxy.endpoint import ProxyEndpoint, ProxyParts
from relay.bff.proxy.field_filter import FieldFilter
from relay.bff.proxy.headers import HeaderLists
from relay.bff.proxy.open_calls import OpenCalls
from relay.bff.proxy.requests import ProxyRoute, RequestChecks
from relay.bff.proxy.upstream import Upstream
from relay.bff.refresh import Refresher
from relay.core.errors import Refusal
from relay.issuer.service import Issuer
from relay.net.addresses import parse_networks
from relay.server.session_refresh import make_renewal
from relay.server.session_verifier import own_cookies, session_cookies
from relay.sessions.base import Session
from relay.sessions.cookies import SessionCookies
from relay.settings.load import Settings
from relay.web.client_identity import client_reader
from relay.web.csrf import CsrfCheck


def access_tokens(
    settings: Settings, issuer: Issuer, refresher: Refresher | None, csrf: CsrfCheck
) -> AccessTokens:
    """Return what finds the access token of a request, for the proxy and for GET /api/auth/me."""

    client_of = client_reader(parse_networks(settings.public.trusted_proxies))

    async def authenticate(credential: str, request: Request) -> Session | Refusal:
        return await issuer.authenticate(credential, now=time.time(), caller=client_of(request).address)

    renewal = None
    if refresher is not None:
        renewal = make_renewal(settings, refresher, csrf=csrf, client_of=client_of)
    return CookieAccess(
        session=session_cookies(settings),
        refresh=SessionCookies(names=(settings.bff.refresh_cookie,)),
        authenticate=authenticate,
        renewal=renewal,
    )


def make_proxy(
    settings: Settings,
    *,
    issuer: Issuer,
    tokens: AccessTokens,
    auditor: Auditor,
    csrf: CsrfCheck,
    open_calls: OpenCalls,
) -> ProxyEndpoint | None:
    """Return the proxy, or None if the settings have no routes for it. The caller closes its `upstream`."""
    bff, proxy = settings.bff, settings.bff.proxy
    if bff.backend is None or not proxy.routes:
        return None
    client_of = client_reader(parse_networks(settings.public.trusted_proxies))
    return ProxyEndpoint(
        ProxyParts(
            checks=request_checks(settings),
            options=call_options(settings),
            upstream=Upstream(
                bff.backend,
                connections=proxy.connections,
                keepalive_s=proxy.keepalive_s,
                connect_within_s=bff.timeout_s,
            ),
            open_calls=open_calls,
            tokens=tokens,
            cookies=own_cookies(settings),
            auditor=auditor,
            csrf=csrf,
            client_of=client_of,
            limit_address=issuer.limits.proxy_address,
            limit_session=issuer.limits.proxy_session,
        )
    )


def request_checks(settings: Settings) -> RequestChecks:
    """Return the checks of requests, with the routes of the settings."""
    proxy = settings.bff.proxy
    routes = {
        prefix: ProxyRoute(
            methods=frozenset(route.methods) | ({"HEAD"} if "GET" in route.methods else set()),
            strip=FieldFilter(route.strip) if route.strip else None,
        )
        for prefix, route in proxy.routes.items()
    }
    return RequestChecks(
        routes, forbidden=_forbidden(settings), max_body_bytes=proxy.max_body_bytes, lists=_lists(settings)
    )


def call_options(settings: Settings) -> CallOptions:
    """Return the options of the calls that begin from now on."""
    proxy = settings.bff.proxy
    return CallOptions(
        lists=_lists(settings),
        max_body_bytes=proxy.max_body_bytes,
        inspect_bytes=proxy.inspect_bytes,
        filter_bytes=proxy.filter_bytes,
        answer_s=proxy.answer_s,
        idle_s=proxy.idle_s,
    )


def _lists(settings: Settings) -> HeaderLists:
    proxy = settings.bff.proxy
    return HeaderLists(
        request=frozenset(proxy.request_headers),
        response=frozenset(proxy.response_headers),
        request_cookies=frozenset(proxy.request_cookies),
        response_cookies=frozenset(proxy.response_cookies),
    )


def _forbidden(settings: Settings) -> tuple[str, ...]:
    """Return the backend's authentication routes: everything below /auth, and those that the settings name."""
    me = settings.session.upstream.me if settings.session.upstream else ""
    own = [urlsplit(me).path] if me.startswith(f"{settings.bff.backend}/") else []
    bff = settings.bff
    paths = (bff.login_path, bff.refresh.path, bff.me_path, bff.logout_path)
    return ("/auth", *(path for path in paths if path), *own)
