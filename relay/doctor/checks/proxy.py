"""Checks of the backend and of the API proxy's routes and headers."""

from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity, host_of, is_loopback

_IDENTITY = ("remote-", "x-auth", "x-remote-", "x-role", "x-tenant", "x-user", "x-client-cert", "x-ssl-")
"""Beginnings of headers that backends believe to come from a proxy."""


def _plain_backend(deployment: Deployment) -> Iterator[str]:
    backend = deployment.settings.bff.backend
    if backend is not None and backend.startswith("http://") and not is_loopback(host_of(backend)):
        yield f"bff.backend is {backend}"


def _whole_backend(deployment: Deployment) -> Iterator[str]:
    route = deployment.settings.bff.proxy.routes.get("/")
    if route is not None:
        yield f'bff.proxy.routes has "/" with {", ".join(route.methods)}'


def _no_writes(deployment: Deployment) -> Iterator[str]:
    routes = deployment.settings.bff.proxy.routes
    if routes and not any(set(route.methods) - {"GET"} for route in routes.values()):
        yield "no route of bff.proxy.routes has another method than GET"


def _believed_header(deployment: Deployment) -> Iterator[str]:
    for name in deployment.settings.bff.proxy.request_headers:
        if name.startswith(_IDENTITY):
            yield f"bff.proxy.request_headers has {name}"


CHECKS = (
    Check(
        name="plain-backend",
        severity=Severity.WARNING,  # the network between two containers of one machine is private
        finds="bff.backend begins with http:// and is on another machine.",
        means="Passwords and access tokens cross the network unencrypted.",
        do="Use https://, or a network between the two that nobody else can read.",
        run=_plain_backend,
    ),
    Check(
        name="proxy-whole-backend",
        severity=Severity.WARNING,
        finds='bff.proxy.routes has the prefix "/".',
        means="Every path of the backend is open to pages, also paths that are added later or meant for other servers.",
        do="Name the prefixes that the pages use, and give writes a route of their own.",
        run=_whole_backend,
    ),
    Check(
        name="proxy-no-writes",
        severity=Severity.NOTE,
        finds="The API proxy has routes, and none of them has a method that writes.",
        means="Each POST, PUT, PATCH and DELETE of a page is answered with 405.",
        do='If pages write, add a route with methods = ["GET", "POST"] for the prefix that they write to.',
        run=_no_writes,
    ),
    Check(
        name="proxy-believed-header",
        severity=Severity.WARNING,
        finds="bff.proxy.request_headers has a name by which backends know a user, a role or a tenant.",
        means="A script in a page can send any value. A backend that believes it serves the data of others.",
        do="Remove it, and let the backend read the access token.",
        run=_believed_header,
    ),
)
