"""Whose address is it? X-Forwarded-For is believed from configured proxies only, and read from the right.

Each proxy appends the address it saw, so the entries at the right are the ones that our own proxies wrote; the
first one from the right that is no proxy of ours is the client. What stands further left anybody can make up.

`Forwarded` (RFC 7239) is not read, and neither is X-Real-IP. A proxy writes one of these headers and passes the
others on as the client sent them (nginx and Caddy do), so whoever reads two of them believes the client in one.
"""

import ipaddress
import re
from collections.abc import Sequence

from relay.net.addresses import Address, Network, parse_address

_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
"""`192.0.2.1:443`, `[2001:db8::1]:443` and `[2001:db8::1]`, as Azure's gateway and some others append them."""


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address: `peer`, or what trusted proxies say. `forwarded_for` are the header's values.

    An entry that is no address ends the search: the last believable hop is the answer.
    """
    current = parse_address(peer)
    if current is None:
        return peer
    if not _is_trusted(current, trusted):
        return str(current)
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
    """Return `texts` as networks; they were checked with the settings."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def _parse_hop(text: str) -> Address | None:
    """Return an entry of the header as an address. No zones (`fe80::1%…`): they may hold any text at all."""
    if "%" in text:
        return None
    found = _WITH_PORT.fullmatch(text)
    return parse_address((found[1] or found[2]) if found else text)


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)
