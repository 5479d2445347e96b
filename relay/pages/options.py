"""The options of a page server, checked once at its start. They have the same defaults as the relay's settings."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from relay.core.errors import ConfigurationError
from relay.net.addresses import Network

RENEWED: Final = "relay-renewed"
"""Query parameter of a page that is opened after a renewal: the time of the renewal in Unix seconds. The boundary takes
it out before the application sees the query."""

TRIED_S: Final = 30.0
"""A page that is refused so soon after a renewal is not renewed again: that would go on without an end."""

_EMBEDDER = re.compile(r"https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]{1,5})?", re.ASCII)
"""An origin in `frame-ancestors` (CSP 3 §6.4.2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """See `relay.pages.boundary.PageBoundary.__init__`."""

    protected: tuple[str, ...]
    backend: str | None
    login: str
    home: str
    session: str
    access_cookie: str
    refresh_cookie: str
    me_path: str
    user: str
    auth_prefix: str
    timeout_s: float
    trusted_proxies: tuple[Network, ...]
    embedded_in: tuple[str, ...]

    @property
    def never_returned_to(self) -> tuple[str, ...]:
        """Paths that `returnTo` may not have: log-in and log-out would be opened after a log-in."""
        return (self.login, self.session, self.auth_prefix, "/logout")


def checked_options(
    *,
    protected: Collection[str],
    backend: str | None,
    paths: dict[str, str],
    access_cookie: str,
    refresh_cookie: str,
    user: str,
    timeout_s: float,
    trusted_proxies: Sequence[str],
    embedded_in: Sequence[str],
) -> PageOptions:
    """Return the options.

    Raises:
        ConfigurationError: if one can't work. The text names the argument.
    """
    if isinstance(protected, str):
        raise ConfigurationError(f"protected must be a list of paths, not a string: write [{protected!r}].")
    for name, path in [*paths.items(), *(("protected", path) for path in protected)]:
        if (
            not path.startswith("/")
            or path.startswith("//")
            or not (path.isascii() and path.isprintable())
            or set(path) & set(" ?#%\\")
        ):
            raise ConfigurationError(
                f"{name}: {path!r} must be a path that begins with one /, without a query and without escapes."
            )
    for name in ("login", "session"):
        if paths[name] == "/" or any(_is_below(paths[name], path) for path in protected):
            raise ConfigurationError(
                f"{name}: {paths[name]} must be a path of its own, and none of the protected ones: "
                "a user without a session has to reach it."
            )
    if access_cookie == refresh_cookie:
        raise ConfigurationError(
            "access_cookie and refresh_cookie must differ: take session.cookie and bff.refresh_cookie of relay.toml."
        )
    if backend is not None:
        _check_origin(backend)
    if isinstance(embedded_in, str) or not all(map(_EMBEDDER.fullmatch, embedded_in)):
        raise ConfigurationError(
            'embedded_in must be a list of origins, like ["https://portal.example.com"] or ["https://*.example.com"].'
        )
    if timeout_s <= 0:
        raise ConfigurationError(f"timeout_s: {timeout_s} must be more than 0 seconds.")
    return PageOptions(
        protected=tuple(protected),
        backend=backend,
        **paths,
        access_cookie=access_cookie,
        refresh_cookie=refresh_cookie,
        user=user,
        timeout_s=timeout_s,
        trusted_proxies=tuple(_network(text) for text in trusted_proxies),
        embedded_in=tuple(embedded_in),
    )


def is_protected(path: str, protected: Collection[str]) -> bool:
    """Tell whether a path is one of the protected ones, or below one. Whole segments are compared; "/" is one page."""
    return any(_is_below(path, own) for own in protected)


def _is_below(path: str, own: str) -> bool:
    return path == own or (own != "/" and path.startswith(f"{own.rstrip('/')}/"))


def _check_origin(text: str) -> None:
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if not good or text != f"{url.scheme}://{url.netloc}" or "@" in url.netloc:
        raise ConfigurationError(
            f"backend: {text!r} must be an origin without a path, like http://127.0.0.1:9000 (bff.backend)."
        )


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"trusted_proxies: {text!r} must be an address or a network: {error}."
        ) from None
