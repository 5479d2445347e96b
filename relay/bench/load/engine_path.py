"""What a node does over its engine, without sockets, as a program: `python -m relay.bench.load.engine_path`.

It publishes through the broker of a node, claims tokens through its state store, and lets another broker take over all
channels after a gap. Its own CPU is that of the node's part. Full batches are played several times for what a script
takes of the engine.
"""

import asyncio
import math
import secrets
import time
from collections import deque
from contextlib import aclosing
from typing import Any

import msgspec

from relay.bench.load.engine_server import EngineOrder, EnginePath
from relay.bench.load.orders import carry_out, say
from relay.bench.load.subscribers import quantile
from relay.core.channels import ChannelOptions
from relay.core.publications import Draft, Publication, parse_draft
from relay.engine.address import Address, read_address
from relay.engine.batches import MAX_BYTES, MAX_ITEMS
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.options import EngineOptions
from relay.engine.state import EngineState
from relay.stream.fanout import Fanout

DATA = b'{"quote":"%b"}' % (b"1" * 138)
"""150 bytes."""
IN_FLIGHT = 256
"""Messages without an answer: a batch is with the engine, and the next ones are full."""
WARM_UP = 1000
CLAIM_ROUNDS = 10
CHANNELS = 100
TOKEN_S = 30.0
ROUNDS, SCRIPTS = 5, 120
"""How often the same batches are played, and how many. Their hash tables grow in that time."""


def drafts(count: int) -> list[Draft]:
    """Return a draft for each of so many channels."""
    return [parse_draft(b'{"channel":"prices.%d","data":%b}' % (number, DATA)) for number in range(count)]


async def publish(broker: EngineBroker, some: list[Draft], count: int) -> None:
    """Publish so many messages, and take their answers in order."""
    waiting: deque[Any] = deque()
    for number in range(count):
        waiting.append(broker.publish(some[number % len(some)], ts=int(time.time() * 1000)))
        while len(waiting) >= IN_FLIGHT:
            await waiting.popleft()
            while waiting and waiting[0].done():
                waiting.popleft().result()
    for answer in waiting:
        await answer


async def claim(state: EngineState, count: int) -> tuple[float, list[float]]:
    """Claim so many tokens at once, several times. Returns the CPU seconds, and how long each claim took."""
    took = []

    async def one(jti: str) -> None:
        began = time.monotonic()
        # issued after the begin of the engine's life, which this program may have begun itself
        issued_at = time.time() + TOKEN_S
        assert await state.claim(jti, expires_at=issued_at + TOKEN_S, issued_at=issued_at)
        took.append(time.monotonic() - began)

    cpu_s = time.process_time()
    for _ in range(CLAIM_ROUNDS):
        await asyncio.gather(*(one(secrets.token_hex(16)) for _ in range(count)))
    return time.process_time() - cpu_s, sorted(took)


async def longest_script_ms(address: Address, pid: int, batches: int) -> float:
    """Return the most CPU of the engine for a full batch with a history and idempotency keys. Every other one has as
    many bytes as it may have.

    The same batches are published in several rounds, and the shortest of each counts. On a shared machine a fixed
    computation of one millisecond takes ten now and then; what a script does itself is in all rounds.
    """
    large = b'"%b"' % (b"1" * (MAX_BYTES // MAX_ITEMS - 2))
    history, shortest = KeptHistory(messages=1000, seconds=60), [math.inf] * batches
    for turn in range(ROUNDS):
        options = EngineOptions(address=address, prefix=f"script{turn}")
        broker = EngineBroker(options, max_channels=MAX_ITEMS * batches, history_of=lambda _: history)
        for place in range(batches):
            data, began = msgspec.Raw(large if place % 2 else DATA), time.clock_gettime(_cpu_clock(pid))
            names = [f"prices.{place}.{number}" for number in range(MAX_ITEMS)]
            some = [Draft(channel=name, data=data, idempotency_key="1") for name in names]
            await asyncio.gather(*(broker.publish(draft, ts=1) for draft in some))
            shortest[place] = min(shortest[place], time.clock_gettime(_cpu_clock(pid)) - began)
        await broker.aclose()
    return max(shortest) * 1e3


def _cpu_clock(pid: int) -> int:
    return (~pid << 3) | 2  # clock_getcpuclockid(3)


class _Node(Fanout):
    """A node's hub, which tells when it has so many values."""

    def __init__(self, count: int) -> None:
        super().__init__(lambda _channel: ChannelOptions())
        self._missing = count
        self.has_all = asyncio.Event()

    def publish(self, publication: Publication) -> None:
        super().publish(publication)
        self._missing -= 1
        if not self._missing:
            self.has_all.set()


async def resync(options: EngineOptions, count: int) -> float:
    """Return the seconds in which a node that has missed everything takes over so many channels."""
    one, other = (EngineBroker(options, max_channels=count) for _ in range(2))
    async with aclosing(one), aclosing(other):
        await publish(one, drafts(count), count)
        node = _Node(count)
        await other.load()
        began = time.monotonic()
        other.attach(node, after="1-0")  # an entry of an older life: the node has missed all that came after
        await node.has_all.wait()
        return time.monotonic() - began


async def measure(order: EngineOrder) -> EnginePath:
    """Measure one part after the other, each with keys of its own."""
    address = read_address(order.url)
    options = EngineOptions(address=address, prefix="path")
    async with aclosing(EngineBroker(options, max_channels=CHANNELS)) as broker:
        some = drafts(CHANNELS)
        await publish(broker, some, WARM_UP)
        cpu_s = time.process_time()
        await publish(broker, some, order.messages)
        cpu_s = time.process_time() - cpu_s
    say(progress=order.messages)
    async with aclosing(await EngineState.open(EngineOptions(address=address, prefix="claims"))) as state:
        claims_cpu_s, took = await claim(state, order.claims)
    return EnginePath(
        cpu_us_a_message=cpu_s / order.messages * 1e6,
        cpu_us_a_claim=claims_cpu_s / len(took) * 1e6,
        claims_p99_ms=quantile(took, 0.99, unit=1e-3),
        resync_s=await resync(EngineOptions(address=address, prefix="resync"), order.resync),
        script_ms=await longest_script_ms(address, order.pid, min(SCRIPTS, order.messages // MAX_ITEMS)),
    )


if __name__ == "__main__":
    carry_out(EngineOrder, measure)
