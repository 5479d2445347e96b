"""IP addresses as texts from outside: read once, in one spelling, and counted in the unit that a client has.

A dual-stack listener shows IPv4 clients as `::ffff:192.0.2.1`; as they stand, all of them would be one /64, and one
of them could use up the limit of the whole IPv4 internet. And whoever has one IPv6 address has 2^64 of them
(RFC 6177: a site gets a /64 at least), so that a limit by address is none; there the /64 is what is counted.
"""

import ipaddress
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=4096)  # asked for each connection and request, at 4 µs
def parse_address(text: str) -> Address | None:
    """Return `text` as an address, an IPv4 address where it is one in IPv6's clothes, or None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def plain(text: str) -> str:
    """Return an address in its one spelling; what is none is left as it is."""
    if ":" not in text:
        return text
    address = parse_address(text)
    return text if address is None else str(address)


def network_of(text: str) -> str:
    """Return what is counted for an address: itself, or for IPv6 its /64. What is no address is left as it is."""
    return text if ":" not in text else _ipv6_network_of(text)


@lru_cache(maxsize=4096)  # asked several times for each connection, at 10 µs
def _ipv6_network_of(text: str) -> str:
    address = parse_address(text)
    if address is None or address.version == 4:
        return text if address is None else str(address)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
