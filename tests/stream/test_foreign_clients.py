"""Clients that nobody here wrote: each connects in each of the three ways, subscribes, and reads what comes.

A server that only its own client understands proves nothing about RFC 6455 or relay.v1.
"""

import itertools
import json
from typing import Any

import pytest

from tests.support.foreign_clients import OPENERS, Client, Opener, Ticket, node_built_in
from tests.support.minted_tokens import audited
from tests.support.raw_websocket import until
from tests.support.relay_process import Relay

LARGEST = "x" * 65_480
"""A publication may have 64 KiB; with relay.v1 around it the frame's length takes 64 bits (RFC 6455 §5.2)."""

every_client = pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)
_numbers = itertools.count()


async def next_message(client: Client, kind: str) -> dict[str, Any]:
    """Return the next message but for heartbeats; it must be of this type."""
    while (message := json.loads(await client.read()))["type"] == "heartbeat":
        pass
    assert message["type"] == kind, message
    return dict(message)


@every_client
@pytest.mark.parametrize("transport", ["subprotocol", "query", "first_message"])
async def test_a_foreign_client_reads_prices(relay: Relay, opener: Opener, transport: str) -> None:
    """It gets a snapshot, an update and one of the largest size, in order. The audit log has its close."""
    channel = f"prices.foreign.F{next(_numbers)}"
    await relay.publish(channel, 1)
    origin = "" if opener is node_built_in else relay.url
    token = await relay.token(origin=origin)
    ticket = Ticket(
        url=f"{relay.stream_url}/ws/prices" + (f"?token={token}" if transport == "query" else ""),
        protocols=["relay.v1", f"bearer.{token}"] if transport == "subprotocol" else [],
        origin=origin,
    )
    async with opener(ticket) as client:
        assert client.protocol == ("relay.v1" if transport == "subprotocol" else None)
        if transport == "first_message":
            await client.send(json.dumps({"type": "auth", "token": token}))
        connection = (await next_message(client, "welcome"))["connection"]
        assert (await next_message(client, "error"))["code"] == "nothing_subscribed"
        await client.send(json.dumps({"type": "subscribe", "id": 1, "channels": [channel]}))
        assert (await next_message(client, "subscribed"))["id"] == 1
        assert (await next_message(client, "snapshot"))["data"] == 1
        for data in (2, LARGEST):
            assert (await relay.publish(channel, data)).status_code == 200
            assert (await next_message(client, "update"))["data"] == data
        await client.close()

    def ends() -> list[tuple[Any, ...]]:
        return [
            (record["relay"]["connection"]["close_code"], record["event"]["reason"])
            for record in audited(relay)
            if record["event"]["action"] == "connection.closed"
            and record["relay"]["connection"]["id"] == connection
        ]

    await until(lambda: bool(ends()))
    assert ends() == [(1000, "client_closed")]


@every_client
async def test_a_foreign_client_is_told_why_it_was_closed(relay: Relay, opener: Opener) -> None:
    """The close code and the text arrive as they were sent, and the client treats it as a clean end."""
    origin = "" if opener is node_built_in else relay.url
    token = await relay.token(origin=origin)
    ticket = Ticket(url=f"{relay.stream_url}/ws/prices?token={token}", protocols=[], origin=origin)
    async with opener(ticket) as client:
        await next_message(client, "welcome")
        await client.send("rubbish")
        assert await client.ended() == (1008, "malformed")
