"""Addresses in one spelling, and the unit in which they are counted."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.addresses import network_of, parse_address, plain


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:0db8:0:0:ffff::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("nonsense", "nonsense"),
        (":::", ":::"),
    ],
)
def test_an_ipv6_network_is_counted_as_one(text: str, counted: str) -> None:
    """An IPv4 address counts as itself, in IPv6's clothes too; an IPv6 address as its /64; anything else as it is."""
    assert network_of(text) == counted


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_mapped_clients_are_told_apart(one: ipaddress.IPv4Address, other: ipaddress.IPv4Address) -> None:
    """Clients of a dual-stack listener share a count only if they are the same address."""
    assert (network_of(f"::ffff:{one}") == network_of(f"::ffff:{other}")) == (one == other)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0001", "2001:db8::1"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_an_address_has_one_spelling(text: str, shown: str) -> None:
    """As it is recorded and compared."""
    assert plain(text) == shown


@given(st.text(max_size=50) | st.ip_addresses().map(str))
def test_any_text_is_an_address_or_none(text: str) -> None:
    """Nothing raises, and the spelling does not count."""
    address = parse_address(text)
    assert network_of(text) == (text if address is None else network_of(str(address)))
