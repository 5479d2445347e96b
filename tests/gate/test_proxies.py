"""Proxies: limits and audit events use the address that the proxy saw, and only trusted proxies are believed."""

import asyncio
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.raw_http import exchange, head, knock, read_answer, upgrade
from tests.support.relay_process import Relay, make_relay
from tests.support.shared_relay import assert_quiet

PROXY, UNTRUSTED = "127.0.0.4", "127.0.0.5"
LIMIT = 3
DUAL_STACK = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@pytest.fixture(scope="module", params=["127.0.0.1", pytest.param("[::]", marks=DUAL_STACK)])
def relay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that trusts 127.0.0.4, with three unauthenticated connections per address.

    On [::] IPv4 clients come as ::ffff:127.0.0.4, and must not be counted as one network.
    """
    limits = f"unauthenticated_per_address = {LIMIT}"
    relay = make_relay(tmp_path_factory.mktemp("proxied"), limits=limits)
    relay.environment["RELAY_PUBLIC__TRUSTED_PROXIES"] = f'["{PROXY}"]'
    for listener, port in zip(("HTTP", "STREAM"), relay.ports, strict=False):
        relay.environment[f"RELAY_LISTEN__{listener}"] = f"{request.param}:{port}"
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)


async def test_the_limit_counts_the_clients_of_a_proxy_one_by_one(relay: Relay) -> None:
    """One client that waits without a token does not use the room of others with the same proxy."""
    busy, calm = ("X-Forwarded-For", "9.9.9.9, 198.51.100.1"), ("X-Forwarded-For", "198.51.100.2")
    writers = []
    for _ in range(LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[1], local_addr=(PROXY, 0))
        writer.write(head("GET", "/ws/prices", [*upgrade(relay), busy]))
        assert (await read_answer(reader)).status == 101
        writers.append(writer)
    assert (await knock(relay, fields=[*upgrade(relay), busy], source=PROXY)).status == 429
    assert (await knock(relay, fields=[*upgrade(relay), calm], source=PROXY)).status == 101
    spoofed = await knock(relay, fields=[*upgrade(relay), busy], source=UNTRUSTED)
    assert spoofed.status == 101, "an untrusted header is not believed, so its own count applies"
    for writer in writers:
        writer.close()
    record = await relay.audited("connect.denied", reason="address_limit")
    assert (record["client"], record["source"]) == ({"ip": "198.51.100.1"}, {"ip": PROXY})


def came_from(source: str, record: dict[str, Any]) -> bool:
    """Tell whether a record is about the request from this address."""
    return record.get("user_agent") == {"original": f"from {source}"}


async def test_the_issuer_records_both_addresses(relay: Relay) -> None:
    """client.ip is the address that the proxy saw, source.ip the proxy. From an untrusted peer both are the peer."""
    for source, expected in ((PROXY, "198.51.100.3"), (UNTRUSTED, UNTRUSTED)):
        fields = [
            ("Host", "x"),
            ("User-Agent", f"from {source}"),
            ("X-Forwarded-For", "198.51.100.3"),
            ("Content-Length", "0"),
        ]
        await exchange(relay.ports[0], head("POST", "/auth/ws-token", fields), source=source)
        record = await relay.recorded(partial(came_from, source))
        assert (record["client"], record["source"]) == ({"ip": expected}, {"ip": source})


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["198.51.100.4:51234"], "198.51.100.4"),
        (["[2001:db8::4]:51234"], "2001:db8::4"),
        (["2001:db8:0:0::5"], "2001:db8::5"),
        (["::ffff:198.51.100.6"], "198.51.100.6"),
        (["203.0.113.1", "198.51.100.8"], "198.51.100.8"),
        (["203.0.113.1, 198.51.100.9, 127.0.0.4"], "198.51.100.9"),
        (["198.51.100.10, <script>"], PROXY),
        (["198.51.100.10", ""], PROXY),
        (["\x80\xff"], PROXY),
        (["," * 5000], PROXY),
    ],
)
async def test_both_listeners_read_the_header_alike(
    relay: Relay, forwarded: list[str], expected: str
) -> None:
    """With ports, IPv6, several headers and garbage: the rightmost untrusted hop is the client, else the proxy."""
    agent = f"agent {forwarded!r}"[:60].encode("unicode_escape").decode()
    fields = [("User-Agent", agent), *(("X-Forwarded-For", value) for value in forwarded)]
    others = [("Forwarded", "for=203.0.113.66"), ("X-Real-IP", "203.0.113.66")]
    for port, data in (
        (
            relay.ports[0],
            head("POST", "/auth/ws-token", [("Host", "x"), ("Content-Length", "0"), *fields, *others]),
        ),
        (relay.ports[1], head("GET", "/nowhere", [*upgrade(relay), *fields, *others])),
    ):
        await exchange(port, data, source=PROXY)
    for action in ("token.denied", "connect.denied"):
        record = await relay.recorded(partial(was, action, agent))
        assert record["client"] == {"ip": expected}


def was(action: str, agent: str, record: dict[str, Any]) -> bool:
    """Tell whether a record is of this action and of the request with this User-Agent."""
    return record["event"]["action"] == action and record.get("user_agent") == {"original": agent}


async def test_an_ipv6_network_shares_one_limit(relay: Relay) -> None:
    """Addresses of one /64 share the room for connections without a token."""
    writers = []
    for host in range(LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[1], local_addr=(PROXY, 0))
        writer.write(head("GET", "/ws/prices", [*upgrade(relay), ("X-Forwarded-For", f"2001:db8:7::{host}")]))
        assert (await read_answer(reader)).status == 101
        writers.append(writer)
    for address, status in (("2001:db8:7::ffff", 429), ("2001:db8:7:1::ffff", 101)):
        fields = [*upgrade(relay), ("X-Forwarded-For", address)]
        assert (await knock(relay, fields=fields, source=PROXY)).status == status
    for writer in writers:
        writer.close()
