"""Connections without a token, counted by address."""

from relay.net.addresses import parse_networks
from relay.net.unauthenticated import Bounds, UnauthenticatedConnections


def test_each_address_has_a_limit_of_its_own() -> None:
    """The connection in question is counted; an address without connections is forgotten."""
    unauthenticated = UnauthenticatedConnections(Bounds(limit=2, crowd=50))
    for _ in range(2):
        unauthenticated.add("192.0.2.1")
    assert not unauthenticated.over_limit("192.0.2.1")
    unauthenticated.add("192.0.2.1")
    assert unauthenticated.over_limit("192.0.2.1")
    assert not unauthenticated.over_limit("192.0.2.2")
    for _ in range(3):
        unauthenticated.remove("192.0.2.1")
    assert not unauthenticated._counts


def test_an_ipv6_network_has_one_limit() -> None:
    """A /64 of IPv6 is counted as one; IPv4-mapped addresses are counted one by one."""
    unauthenticated = UnauthenticatedConnections(Bounds(limit=2, crowd=50))
    for host in range(3):
        unauthenticated.add(f"2001:db8::{host}")
        unauthenticated.add(f"::ffff:192.0.2.{host}")
    assert unauthenticated.over_limit("2001:db8::9")
    assert not unauthenticated.over_limit("2001:db8:0:1::9")
    assert not unauthenticated.over_limit("192.0.2.1")
    for host in range(3):
        unauthenticated.remove(f"2001:db8::{host}")
        unauthenticated.remove(f"192.0.2.{host}")
    assert not unauthenticated._counts


def test_room_is_made_only_if_connections_without_a_token_use_it() -> None:
    """Above the limit they end while they are more than a tenth of it."""
    unauthenticated = UnauthenticatedConnections(Bounds(limit=2, crowd=50))
    for host in range(11):
        unauthenticated.add(f"192.0.2.{host}")
    assert unauthenticated.must_make_room(connections=101, limit=100)
    assert not unauthenticated.must_make_room(connections=100, limit=100)
    unauthenticated.remove("192.0.2.1")
    assert not unauthenticated.must_make_room(connections=101, limit=100)


def test_an_address_is_cut_off_only_when_the_listener_is_crowded() -> None:
    """Nothing is cut off while there is room, and a proxy never."""
    unauthenticated = UnauthenticatedConnections(
        Bounds(limit=2, crowd=50), proxies=parse_networks(["192.0.2.9"])
    )
    for peer in ("192.0.2.1", "192.0.2.9") * 5:
        unauthenticated.add(peer)
    unauthenticated.add("192.0.2.2")
    assert not unauthenticated.must_drop("192.0.2.1", connections=50)
    assert unauthenticated.must_drop("192.0.2.1", connections=51)
    assert not unauthenticated.must_drop("192.0.2.2", connections=51)
    assert not unauthenticated.must_drop("192.0.2.9", connections=51)
    assert unauthenticated.total == 11
