"""A reconnect storm: a relay goes away under hundreds of clients at one address, and all of them come back to it.

Every client takes a new token and connects, at its own time. The address may have far fewer connections without a
token than there are clients, so that some are refused with 429 on the way; a refusal must be a wait and no end.
"""

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from relay.client import Closed, Snapshot, Subscriber, TokenError, Update, Welcome
from tests.support.raw_http import post
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet

CLIENTS = 500
ROOM = 50
"""Connections without a token that their address may have."""
PATIENCE_S = 100


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay with little room for those who have shown no token."""
    limits = f"unauthenticated_per_address = {ROOM}\ndrain_s = 1.0"
    with running(tmp_path, limits=limits) as relay:
        yield relay
    assert_quiet(relay)


async def token(relay: Relay) -> str:
    """Return a fresh token, as the SDK's own function would but without loading certificates 1000 times."""
    fields = [("Authorization", f"Bearer {relay.session()}"), ("Content-Type", "application/json")]
    body = json.dumps({"origin": relay.url, "channels": ["prices.STORM"]}).encode()
    try:
        answer = await post(relay, "/auth/ws-token", fields, body=body)
    except OSError as error:
        raise TokenError("unreachable", str(error), retryable=True) from None
    if answer.status == 200:
        return str(answer.json["wsToken"])
    retryable = answer.status in (0, 429, 503)  # 0: the connection broke
    raise TokenError("refused", f"{answer.status}", status=answer.status, retryable=retryable)


class Crowd:
    """What all clients saw: how often each was welcomed, the last value each has, and why they had to wait."""

    def __init__(self) -> None:
        self.welcomes: Counter[int] = Counter()
        self.values: dict[int, int] = {}
        self.waits: Counter[int | None] = Counter()
        self.changed = asyncio.Event()

    async def follow(self, relay: Relay, number: int) -> None:
        """Be one client, until cancelled. A refusal for good raises and ends the test."""
        url = f"{relay.stream_url}/ws/prices"
        async with Subscriber(url, partial(token, relay), origin=relay.url) as events:
            await events.subscribe(["prices.STORM"])
            async for event in events:
                match event:
                    case Welcome():
                        self.welcomes[number] += 1
                    case Snapshot() | Update():
                        self.values[number] = int(event.data)
                    case Closed():
                        self.waits[event.status] += 1
                    case _:
                        continue
                self.changed.set()

    async def have(self, value: int) -> None:
        """Wait until every client has this value."""
        async with asyncio.timeout(PATIENCE_S):
            while sum(found == value for found in self.values.values()) < CLIENTS:
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
async def test_everybody_comes_back_and_nobody_is_refused_for_good(relay: Relay, number: int) -> None:
    """500 clients lose their relay, whether it is killed or says so before; each is back with the new price."""
    crowd = Crowd()
    await relay.publish("prices.STORM", 1)
    tasks = [asyncio.create_task(crowd.follow(relay, index)) for index in range(CLIENTS)]
    try:
        await crowd.have(1)
        assert relay.process is not None
        if number == signal.SIGKILL:
            relay.kill()
        else:
            assert await asyncio.to_thread(relay.stop, number) == 0
        await asyncio.to_thread(relay.start)
        await relay.publish("prices.STORM", 2)
        await crowd.have(2)
        assert not [task for task in tasks if task.done()], "nobody gave up"
        assert min(crowd.welcomes.values()) >= 2
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
    refusals = Counter(
        record["event"]["reason"] for record in relay.audit() if record["event"]["action"] == "connect.denied"
    )
    assert set(refusals) <= {"address_limit", "draining"}, refusals
