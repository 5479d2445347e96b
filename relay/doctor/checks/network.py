"""Checks of the listeners' addresses, origins, proxies and TLS, and of the channels that a grant opens."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from relay.doctor.base import Check, Deployment, Severity, host_of, is_loopback
from relay.settings.endpoints import channels_of

_WIDEST = {4: 8, 6: 24}
"""Prefix lengths below which a network of proxies is too wide: 10.0.0.0/8 is a private network, and the widest networks
that a content delivery network publishes are /13 and /29."""


def _query_transport(deployment: Deployment) -> Iterator[str]:
    if "query" in deployment.settings.tokens.transports:
        yield 'tokens.transports has "query"'


def _plain_origin(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    named = [("public.url", settings.public.url), ("public.stream_url", settings.public.stream_url)]
    named += [("public.allowed_origins", origin) for origin in settings.public.allowed_origins]
    named += [("csrf.trusted_origins", origin) for origin in settings.csrf.trusted_origins]
    named += [(f"endpoints.{name}.url", service.url) for name, service in settings.services.items()]
    for setting, url in named:
        if url.startswith(("http://", "ws://")) and not is_loopback(urlsplit(url).hostname or ""):
            yield f"{setting} has {url}"


def _foreign_origin(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    own = _site(host_of(settings.public.url))
    for setting, origins in (
        ("public.allowed_origins", settings.public.allowed_origins),
        ("csrf.trusted_origins", settings.csrf.trusted_origins),
    ):
        for origin in origins:
            # an application or an extension is installed and has no site
            if origin.startswith(("http://", "https://")) and _site(host_of(origin)) != own:
                yield f"{setting} has {origin}, which is not a part of {own}"


def _site(host: str) -> str:
    """Return the site of a host name: its last two labels, or three if the second last is short (example.co.uk)."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        labels = host.split(".")
    short = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if short else -2 :])


def _wide_proxies(deployment: Deployment) -> Iterator[str]:
    for text in deployment.settings.public.trusted_proxies:
        network = ipaddress.ip_network(text)
        if network.prefixlen < _WIDEST[network.version]:
            yield f"public.trusted_proxies has {text}"


def _no_tls(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    if settings.listen.tls is not None or settings.public.trusted_proxies:
        return
    for name, address in (("http", settings.listen.http), ("stream", settings.listen.stream)):
        if not is_loopback(host_of(address)):
            yield f"listen.{name} is {address}, without listen.tls and without public.trusted_proxies"


def _proxy_unknown(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    listeners = (settings.listen.http, settings.listen.stream)
    if (
        settings.listen.tls is None
        and not settings.public.trusted_proxies
        and not is_loopback(host_of(settings.public.url))
        and all(is_loopback(host_of(address)) for address in listeners)
    ):
        yield "the public listeners are on loopback and public.trusted_proxies is empty"


def _internal_exposed(deployment: Deployment) -> Iterator[str]:
    address = deployment.settings.listen.internal
    try:
        ip = ipaddress.ip_address(host_of(address))
    except ValueError:
        return
    if ip.is_unspecified:
        yield f"listen.internal is {address}, which means every address of this machine"
    elif ip.is_global:
        yield f"listen.internal is {address}, a public address"


def _internal_plain(deployment: Deployment) -> Iterator[str]:
    listen = deployment.settings.listen
    if listen.internal_tls is None and not is_loopback(host_of(listen.internal)):
        yield f"listen.internal is {listen.internal}, without listen.internal_tls"


def _wide_grant(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    named = [
        (f"grants.{role}.{endpoint}", channels_of(grant))
        for role, by_endpoint in settings.grants.items()
        for endpoint, grant in by_endpoint.items()
    ]
    named += [(f"publishers.{name}.channels", one.channels) for name, one in settings.publishers.items()]
    for setting, patterns in named:
        for pattern in patterns:
            if pattern.split(".")[0] in (">", "*"):
                yield f"{setting} has {pattern}"


def _plain_jwks(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    signed = settings.session.signed
    named = {"tokens.jwks_url": settings.tokens.jwks_url}
    named |= {"session.signed.jwks_url": None if signed is None else signed.jwks_url}
    for setting, url in named.items():
        if url is not None and url.startswith("http://") and not is_loopback(urlsplit(url).hostname or ""):
            yield f"{setting} has {url}"


def _embedded_cookies(deployment: Deployment) -> Iterator[str]:
    if deployment.settings.bff.same_site == "none":
        yield 'bff.same_site is "none"'


CHECKS = (
    Check(
        name="plain-jwks",
        severity=Severity.WARNING,
        finds="Public keys are fetched over plain http from another machine (jwks_private_http).",
        means="Each machine between the two can replace the keys, and then log in as any user.",
        do="Use https, or a network in which only the relay and the key's owner are.",
        run=_plain_jwks,
    ),
    Check(
        name="plain-origin",
        severity=Severity.ERROR,
        finds="An origin or URL for browsers begins with http:// or ws:// and is not loopback.",
        means="An attacker on the network can read cookies and tokens, and change the page that asks for them.",
        do="Serve it over TLS and write https:// and wss://.",
        run=_plain_origin,
    ),
    Check(
        name="no-tls",
        severity=Severity.ERROR,
        finds="Other machines reach a public listener without TLS and without a known proxy.",
        means="Sessions and tokens cross the network unencrypted; or there is a proxy that the relay does not trust.",
        do="Set listen.tls, or use a proxy with TLS and name it in public.trusted_proxies.",
        run=_no_tls,
    ),
    Check(
        name="proxy-unknown",
        severity=Severity.WARNING,
        finds="The public listeners are for a proxy on this machine, and public.trusted_proxies is empty.",
        means="All clients share the proxy's address, in the limits and in the audit log.",
        do='Set public.trusted_proxies = ["127.0.0.1"], and let the proxy set X-Forwarded-For.',
        run=_proxy_unknown,
    ),
    Check(
        name="wide-proxies",
        severity=Severity.ERROR,
        finds="public.trusted_proxies has a network wider than /8, or /24 of IPv6.",
        means="A client in it can choose the address that the limits and the audit log use.",
        do="Name the addresses of the proxies, or the networks that their operator publishes.",
        run=_wide_proxies,
    ),
    Check(
        name="foreign-origin",
        severity=Severity.WARNING,
        finds="An origin that may open sockets or ask for tokens belongs to another site than public.url.",
        means="A vulnerability in the pages of the other site is one in this application.",
        do="Remove it, or make sure that the site is yours and as secure as this one.",
        run=_foreign_origin,
    ),
    Check(
        name="embedded-cookies",
        severity=Severity.WARNING,
        finds="The cookies are for an application in frames of other sites (SameSite=None).",
        means="Browsers send the cookies with requests that other sites cause. Only the check of Origin stops these.",
        do='Set bff.same_site = "lax", or let the pages name the sites that may embed them (CSP frame-ancestors).',
        run=_embedded_cookies,
    ),
    Check(
        name="internal-exposed",
        severity=Severity.WARNING,
        finds="The internal listener is on a public address, or on all addresses of this machine.",
        means="Only the keys protect publishing and operation then.",
        do="Bind it to loopback or to a private address, or block it with a firewall.",
        run=_internal_exposed,
    ),
    Check(
        name="internal-plain",
        severity=Severity.WARNING,
        finds="Other machines reach the internal listener without TLS.",
        means="The keys of publishers and operators cross the network unencrypted.",
        do="Set listen.internal_tls, or bind it to loopback.",
        run=_internal_plain,
    ),
    Check(
        name="query-transport",
        severity=Severity.WARNING,
        finds="Tokens are accepted in the URL.",
        means="Proxies log URLs. A logged token is already used up, but it says who its user is.",
        do='Set tokens.transports = ["subprotocol", "first_message"] unless a client has no other way.',
        run=_query_transport,
    ),
    Check(
        name="wide-grant",
        severity=Severity.WARNING,
        finds="A role or a publisher has a pattern that begins with a wildcard.",
        means="It opens every channel of the endpoint, future channels too.",
        do='Name the subject first, like "prices.>".',
        run=_wide_grant,
    ),
)
