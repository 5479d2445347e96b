"""Connections without a token, counted by address."""

from relay.net.client_address import parse_networks
from relay.net.unauthenticated import Waiting


def test_an_address_has_its_limit_and_others_have_theirs() -> None:
    """The one that asks is counted already; who leaves makes room, and nothing is remembered of those who left."""
    waiting = Waiting(limit=2, crowd=50)
    for _ in range(2):
        waiting.enter("192.0.2.1")
    assert not waiting.too_many("192.0.2.1")
    waiting.enter("192.0.2.1")
    assert waiting.too_many("192.0.2.1")
    assert not waiting.too_many("192.0.2.2")
    for _ in range(3):
        waiting.leave("192.0.2.1")
    assert not waiting._counts


def test_an_ipv6_network_has_one_limit() -> None:
    """2^64 addresses are one client's; and IPv4 clients of a dual-stack listener are not one network."""
    waiting = Waiting(limit=2, crowd=50)
    for host in range(3):
        waiting.enter(f"2001:db8::{host}")
        waiting.enter(f"::ffff:192.0.2.{host}")
    assert waiting.too_many("2001:db8::9")
    assert not waiting.too_many("2001:db8:0:1::9")
    assert not waiting.too_many("192.0.2.1")
    for host in range(3):
        waiting.leave(f"2001:db8::{host}")
        waiting.leave(f"192.0.2.{host}")
    assert not waiting._counts


def test_only_in_a_crowd_one_address_can_be_too_much() -> None:
    """While there is room for all nobody is cut off, and a proxy never."""
    waiting = Waiting(limit=2, crowd=50, proxies=parse_networks(["192.0.2.9"]))
    for peer in ("192.0.2.1", "192.0.2.9") * 5:
        waiting.enter(peer)
    waiting.enter("192.0.2.2")
    assert not waiting.crowds_out("192.0.2.1", connections=50)
    assert waiting.crowds_out("192.0.2.1", connections=51)
    assert not waiting.crowds_out("192.0.2.2", connections=51)
    assert not waiting.crowds_out("192.0.2.9", connections=51)
    assert waiting.total == 11
