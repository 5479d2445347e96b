"""Addresses: one spelling, the unit of limits, and the client's address from behind proxies."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.addresses import canonical_address, client_address, network_of, parse_address, parse_networks
from relay.web.client_identity import client_reader
from tests.support.http_requests import make_request

PROXIES = parse_networks(["10.0.0.0/8", "fd00::/8"])


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
    """IPv4 and IPv4-mapped addresses count as themselves, IPv6 addresses as their /64, other texts unchanged."""
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
    assert canonical_address(text) == shown


@given(st.text(max_size=50) | st.ip_addresses().map(str))
def test_any_text_is_an_address_or_none(text: str) -> None:
    """Nothing raises, and the spelling does not count."""
    address = parse_address(text)
    assert network_of(text) == (text if address is None else network_of(str(address)))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # not a proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),  # what stands left of it anybody can make up
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.7, garbage"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, garbage, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.7, "], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:443"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("10.0.0.1", ["[::ffff:198.51.100.7]:443"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7:443, 10.0.0.2:80"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7:"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:x"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::7"], "10.0.0.1"),
        ("10.0.0.1", ["2001:db8::7]:443"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", ["unknown", "_hidden"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7", ""], "10.0.0.1"),
        ("10.0.0.1", ["for=198.51.100.7"], "10.0.0.1"),
        ("10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("2001:db8::1", ["198.51.100.7"], "2001:db8::1"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("2001:db8::1", [], "2001:db8::1"),
        ("", ["198.51.100.7"], ""),
        ("unix", ["198.51.100.7"], "unix"),
        ("10.0.0.1", ["0x7f.1, 127.1, 2130706433"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_first_unknown_hop(peer: str, forwarded: list[str], expected: str) -> None:
    """The first address from the right that is no trusted proxy is the client's; another text ends the search."""
    assert client_address(peer, forwarded, PROXIES) == expected


def test_without_proxies_nothing_is_believed() -> None:
    """By default X-Forwarded-For says nothing at all."""
    assert client_address("127.0.0.1", ["198.51.100.7"], ()) == "127.0.0.1"


@given(
    st.sampled_from(["10.0.0.1", "192.0.2.1", "fd00::1", "", "nonsense"]) | st.text(max_size=20),
    st.lists(st.text(max_size=60) | st.just("1.1.1.1, 10.0.0.2"), max_size=4),
)
def test_any_header_gives_an_address(peer: str, forwarded: list[str]) -> None:
    """For any header the answer is the peer or an address."""
    address = client_address(peer, forwarded, PROXIES)
    assert address == peer or ipaddress.ip_address(address)


def test_no_other_header_is_believed() -> None:
    """Forwarded (RFC 7239) and X-Real-IP are the client's own where a proxy does not write them: they are not read."""
    others = [
        ("Forwarded", "for=203.0.113.5"),
        ("X-Real-IP", "203.0.113.5"),
        ("True-Client-IP", "203.0.113.5"),
    ]
    request = make_request(*others, ("X-Forwarded-For", "198.51.100.7"))
    read = client_reader(parse_networks(["192.0.2.0/24"]))
    assert read(request).address == "198.51.100.7"
    assert read(make_request(*others)).address == "192.0.2.1"


def test_a_request_tells_peer_and_client() -> None:
    """Both addresses are kept: that of the socket's peer, and that of the client."""
    request = make_request(("X-Forwarded-For", "198.51.100.7"), ("User-Agent", "a browser"))
    client = client_reader(parse_networks(["192.0.2.0/24"]))(request)
    assert (client.address, client.peer, client.user_agent) == ("198.51.100.7", "192.0.2.1", "a browser")
