"""Whose address is it? X-Forwarded-For is believed from configured proxies only, and read from the right.

Each proxy appends the address it saw, so the entries at the right are the ones that our own proxies wrote; the
first one from the right that is no proxy of ours is the client. What stands further left anybody can make up.
"""

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address: `peer`, or what trusted proxies say. `forwarded_for` are the header's values.

    An entry that is no address ends the search: the last believable hop is the answer.
    """
    current = _parse(peer)
    if current is None or not _is_trusted(current, trusted):
        return peer
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    for hop in reversed(hops):
        address = _parse(hop)
        if address is None:
            break
        current = address
        if not _is_trusted(address, trusted):
            break
    return str(current)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return `texts` as networks; they were checked with the settings."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:10.0.0.1 on a dual-stack listener
    return mapped or address


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)
