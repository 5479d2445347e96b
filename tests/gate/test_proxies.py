"""Behind a proxy: limits and records are about the address that the proxy saw, and only a known proxy is believed."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.hardening.relays import assert_quiet, recorded
from tests.hardening.wire import exchange, head, knock, read_answer, upgrade
from tests.support.service import Relay, make_relay

PROXY, STRANGER = "127.0.0.4", "127.0.0.5"
LIMIT = 3


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that believes 127.0.0.4, and lets an address have three connections without a token."""
    limits = f"unauthenticated_per_address = {LIMIT}"
    relay = make_relay(tmp_path_factory.mktemp("proxied"), limits=limits)
    relay.environment["RELAY_PUBLIC__TRUSTED_PROXIES"] = f'["{PROXY}"]'
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)


async def test_the_limit_counts_who_is_behind_the_proxy(relay: Relay) -> None:
    """One client that waits without a token does not take the room of the others behind the same proxy."""
    busy, calm = ("X-Forwarded-For", "9.9.9.9, 198.51.100.1"), ("X-Forwarded-For", "198.51.100.2")
    writers = []
    for _ in range(LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[1], local_addr=(PROXY, 0))
        writer.write(head("GET", "/ws/prices", [*upgrade(relay), busy]))
        assert (await read_answer(reader)).status == 101
        writers.append(writer)
    assert (await knock(relay, fields=[*upgrade(relay), busy], source=PROXY)).status == 429
    assert (await knock(relay, fields=[*upgrade(relay), calm], source=PROXY)).status == 101
    spoofed = await knock(relay, fields=[*upgrade(relay), busy], source=STRANGER)
    assert spoofed.status == 101, "a stranger's header is not believed, so its own count applies"
    for writer in writers:
        writer.close()
    record = await relay.audited("connect.denied", reason="address_limit")
    assert (record["client"], record["source"]) == ({"ip": "198.51.100.1"}, {"ip": PROXY})


def came_from(source: str, record: dict[str, Any]) -> bool:
    """Tell whether a record is about the request from this address."""
    return record.get("user_agent") == {"original": f"from {source}"}


async def test_the_issuer_records_both_addresses(relay: Relay) -> None:
    """client.ip is whom the proxy saw, source.ip the proxy; from a stranger both are the stranger."""
    for source, expected in ((PROXY, "198.51.100.3"), (STRANGER, STRANGER)):
        fields = [
            ("Host", "x"),
            ("User-Agent", f"from {source}"),
            ("X-Forwarded-For", "198.51.100.3"),
            ("Content-Length", "0"),
        ]
        await exchange(relay.ports[0], head("POST", "/auth/ws-token", fields), source=source)
        record = await recorded(relay, partial(came_from, source))
        assert (record["client"], record["source"]) == ({"ip": expected}, {"ip": source})
