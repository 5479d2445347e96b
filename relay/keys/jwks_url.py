"""The check of a JWKS URL. It imports no HTTP client, because settings and commands that fetch nothing make it too."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from relay.core.errors import ConfigurationError
from relay.net.addresses import Address, is_loopback, parse_address

_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
"""Addresses behind a carrier's NAT (RFC 6598), which some clouds and VPNs use inside."""


def check_jwks_url(url: str, *, private_http: bool = False) -> str:
    """Return `url` if keys may be fetched from it: by https, or by http from this machine.

    With `private_http`, http is allowed to a private address too, and to a host name; `JwksClient` then refuses the
    name if it leads to a public address.

    Raises:
        ConfigurationError: otherwise. An attacker who can change the answer on the network could sign any token.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        raise ConfigurationError("A JWKS URL must be a URL like https://id.example.com/jwks.json.") from None
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError("A JWKS URL must be a URL like https://id.example.com/jwks.json.")
    if parts.username is not None or parts.fragment:
        raise ConfigurationError("A JWKS URL must have no user, no password and no fragment.")
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return url
    if parts.scheme != "http" or not private_http:
        raise ConfigurationError("A JWKS URL must begin with https://; http is for this machine only.")
    if (address := parse_address(host)) is not None and not is_private(address):
        raise ConfigurationError(f"A JWKS URL must begin with https://: {host} is not in a private network.")
    return url


def is_private(address: Address) -> bool:
    """Tell whether an address is in a private network."""
    return (address.is_private and not address.is_unspecified) or address in _SHARED
