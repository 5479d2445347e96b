"""IP addresses in texts from outside: parsing, one spelling, the client's address from behind proxies.

Limits count by `network_of(address)`: an IPv4 address, or an IPv6 /64.
"""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
"""`192.0.2.1:443`, `[2001:db8::1]:443` and `[2001:db8::1]`. Azure's gateway and some other proxies append these."""


@lru_cache(maxsize=4096)  # called for each connection and request; it takes 4 µs
def parse_address(text: str) -> Address | None:
    """Parse an IP address. Return None if `text` is not one.

    IPv4-mapped IPv6 addresses (::ffff:192.0.2.1) are returned as IPv4. A dual-stack listener shows all IPv4 clients
    in that form. They would all be in one /64, and one client could use up the limit of all others.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Tell whether a host name or an address is this machine for every resolver."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def canonical_address(text: str) -> str:
    """Return an address in its canonical spelling. A text that is no address is returned unchanged."""
    return text if ":" not in text else _canonical(text)


@lru_cache(maxsize=4096)  # called for each request; it takes 4 µs
def _canonical(text: str) -> str:
    address = parse_address(text)
    return text if address is None else str(address)


def network_of(text: str) -> str:
    """Return what a limit counts for an address: an IPv4 address itself, or the /64 of an IPv6 address.

    A site gets a /64 at least (RFC 6177), which has 2^64 addresses. A limit on single IPv6 addresses limits nothing.
    A text that is no address is returned unchanged.
    """
    return text if ":" not in text else _ipv6_network_of(text)


@lru_cache(maxsize=4096)  # called several times for each connection; it takes 10 µs
def _ipv6_network_of(text: str) -> str:
    address = parse_address(text)
    if address is None or address.version == 4:
        return text if address is None else str(address)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address: `peer`, or what trusted proxies say.

    `forwarded_for` has the values of X-Forwarded-For. Each proxy appends the address that it saw. So the list is read
    from the right, and the first address that is not one of our proxies is the client's. A client can write anything
    further to the left. An entry that is no address ends the search: the last valid one is the answer.

    `Forwarded` (RFC 7239) and X-Real-IP are not read. A proxy writes one of the three headers and passes the other two
    on as the client sent them (nginx and Caddy do). A relay that reads two of them believes the client in one.
    """
    if not trusted:
        return _canonical(peer)
    current = parse_address(peer)
    if current is None:
        return peer
    if not _is_trusted(current, trusted):
        return _canonical(peer)
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    for hop in reversed(hops):
        address = _parse_hop(hop)
        if address is None:
            break
        current = address
        if not _is_trusted(address, trusted):
            break
    return str(current)


def is_proxy(peer: str, trusted: Sequence[Network]) -> bool:
    """Tell whether a socket's peer is one of the configured proxies."""
    address = parse_address(peer)
    return address is not None and _is_trusted(address, trusted)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks that the settings have checked already."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def _parse_hop(text: str) -> Address | None:
    """Parse an entry of X-Forwarded-For. Addresses with a zone (`fe80::1%…`) are refused: a zone may be any text."""
    if "%" in text:
        return None
    found = _WITH_PORT.fullmatch(text)
    return parse_address((found[1] or found[2]) if found else text)


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)
