"""What the network reaches: addresses, origins, proxies, and how much a grant opens."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from relay.doctor.base import Check, Deployment, Severity, host_of, is_loopback
from relay.settings.endpoints import channels_of

_WIDEST = {4: 8, 6: 24}
"""Prefix lengths below which a network of proxies is too wide: 10.0.0.0/8 is somebody's own, and the widest that a
content delivery network publishes are /13 and /29."""


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
            if _site(host_of(origin)) != own:
                yield f"{setting} has {origin}, which is not of {own}"


def _site(host: str) -> str:
    """Return whose a host name is: its last two labels, or three behind a short one as in example.co.uk."""
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
        yield f"listen.internal is {address}: every address of this machine"
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


CHECKS = (
    Check(
        name="plain-origin",
        severity=Severity.ERROR,
        finds="An origin or URL of browsers begins with http:// or ws:// and is not loopback.",
        means="Whoever is on the way can read cookies and tokens, and change the page that asks for them.",
        do="Serve it over TLS and write https:// and wss://.",
        look=_plain_origin,
    ),
    Check(
        name="no-tls",
        severity=Severity.ERROR,
        finds="A public listener is reached from other machines, without TLS and without a known proxy.",
        means="Sessions and tokens cross the network in the clear; or there is a proxy, and it is not believed.",
        do="Set listen.tls, or put a proxy with TLS in front and name it in public.trusted_proxies.",
        look=_no_tls,
    ),
    Check(
        name="proxy-unknown",
        severity=Severity.WARNING,
        finds="The public listeners are for a proxy on this machine, and public.trusted_proxies is empty.",
        means="All clients share the proxy's address: its limits, and its place in the audit log.",
        do='Set public.trusted_proxies = ["127.0.0.1"], and let the proxy set X-Forwarded-For.',
        look=_proxy_unknown,
    ),
    Check(
        name="wide-proxies",
        severity=Severity.ERROR,
        finds="public.trusted_proxies has a network wider than /8, or /24 of IPv6.",
        means="Clients in it choose the address that limits count and the audit log shows.",
        do="Name the proxies' own addresses, or the networks that their operator publishes.",
        look=_wide_proxies,
    ),
    Check(
        name="foreign-origin",
        severity=Severity.WARNING,
        finds="An origin that may open sockets or ask for tokens belongs to another site than public.url.",
        means="A hole in that other site's pages is a hole in this application.",
        do="Take it out, or make sure that it is yours and as well kept.",
        look=_foreign_origin,
    ),
    Check(
        name="internal-exposed",
        severity=Severity.WARNING,
        finds="The internal listener is on a public address, or on all of this machine's.",
        means="Publishing and operating are then protected by their keys alone.",
        do="Bind it to loopback or to a private address, or let a firewall do the same.",
        look=_internal_exposed,
    ),
    Check(
        name="internal-plain",
        severity=Severity.WARNING,
        finds="The internal listener is reached from other machines, without TLS.",
        means="Publishers' and operators' keys cross the network in the clear.",
        do="Set listen.internal_tls, or bind it to loopback.",
        look=_internal_plain,
    ),
    Check(
        name="query-transport",
        severity=Severity.WARNING,
        finds="Tokens may come in the URL.",
        means="URLs end up in the logs of proxies. A token is used up by then, but says who it was for.",
        do='Set tokens.transports = ["subprotocol", "first_message"] unless a client can do nothing else.',
        look=_query_transport,
    ),
    Check(
        name="wide-grant",
        severity=Severity.WARNING,
        finds="A role or a publisher has a pattern that begins with a wildcard.",
        means="It opens every channel that the endpoint has, and those that come later.",
        do='Name the subject first, like "prices.>".',
        look=_wide_grant,
    ),
)
