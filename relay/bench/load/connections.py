"""New connections as a program: `python -m relay.bench.load.connections`.

Either tokens and connections alternate, in portions, so that the server's CPU for either is known apart. Or browsers
come all at once, as after a restart: each takes a token and connects with it, waits as it is told to, and takes a new
token if its own has become too old. All connections stay open until standard input ends.
"""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from relay.audit.jsonl import NOTE_WITHIN_S
from relay.bench.load.clients import (
    Link,
    Refused,
    Target,
    Token,
    connect,
    open_all,
    reason,
    run_clients,
    take_all,
    take_token,
)
from relay.bench.load.orders import carry_out, say, wait_for_end
from relay.bench.load.processes import cpu_of, memory_of
from relay.bench.load.subscribers import quantile

PORTION = 1000
"""Tokens that are taken before they are used. At 100 a second, an eighth of what the issuer does, that takes 10 s."""
SETTLE_S = NOTE_WITHIN_S + 0.05
"""What the server still has to do for new connections counts as theirs, like records that the relay writes later."""
ONE_BY_ONE = 200
"""Connections that are opened one after another."""
ATTEMPTS = 8
FIRST_BACK_OFF_S = 0.5
GIVE_UP_S = 60.0
"""When no browser got a connection for so long, those that are still on their way count as lost."""
_PING = re.compile(rb"\x89([\x00-\x7d])")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`connections`, of which `parallel` are opened at the same time; 0: browsers, all at once. With a `rate` so many
    are opened a second, `parallel` at once.

    `pid` is the server's process, whose CPU and memory are read.
    """

    target: Target
    connections: int
    parallel: int
    pid: int
    rate: float = 0.0


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """What the connections took of the server, and `load_cores`, the share of a core that this process used.

    `cpu_us_a_token` is None where no tokens are needed. `one_by_one_p50_ms` is the median of connections that were
    opened one after another before all others, from the TCP connection to the acknowledged subscription.
    """

    connections: int
    cpu_us_a_connect: float
    connects_per_s: float
    memory_kib_a_connection: float
    cpu_us_a_token: float | None
    one_by_one_p50_ms: float | None
    load_cores: float


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """How the browsers got their connections.

    `lost` got none in `ATTEMPTS` attempts, or were closed again. `refusals` counts the answers after which a browser
    waited or tried again; `refused` are all of them. `max_ms` is the longest time from a browser's first packet to its
    acknowledged subscription, waits included; None if no browser got one. `connects_per_s` counts those that have one.
    """

    connections: int
    lost: int
    refusals: dict[str, int]
    refused: int
    max_ms: float | None
    connects_per_s: float


async def connect_all(order: Order) -> tuple[Connected, list[Link]]:
    """Open all connections in portions."""
    target, links = order.target, list[Link]()
    hand = range(len(target.channels))
    one_by_one_p50_ms = await _one_by_one(target, hand, min(ONE_BY_ONE, order.connections))
    memory_before, started, own_cpu = memory_of(order.pid), time.monotonic(), time.process_time()
    tokens_cpu_s = connects_s = connects_cpu_s = 0.0
    for start in range(0, order.connections, PORTION):
        hands = [hand] * min(PORTION, order.connections - start)
        cpu = cpu_of(order.pid)
        tokens = (
            await take_all(target, hands, parallel=order.parallel, first=start) if target.issuer else None
        )
        taken_at, taken_cpu = time.monotonic(), cpu_of(order.pid)
        size = order.parallel if order.rate else PORTION
        for place in range(0, len(hands), size):
            if order.rate:
                await asyncio.sleep(max(0.0, taken_at + place / order.rate - time.monotonic()))
            part = slice(place, place + size)
            links += await open_all(
                target, hands[part], parallel=order.parallel, tokens=tokens and tokens[part]
            )
        tokens_cpu_s += taken_cpu - cpu
        connects_s += time.monotonic() - taken_at
        await asyncio.sleep(SETTLE_S)
        connects_cpu_s += cpu_of(order.pid) - taken_cpu
        say(progress=len(links))
    count = len(links)
    result = Connected(
        connections=count,
        cpu_us_a_connect=connects_cpu_s / count * 1e6,
        connects_per_s=count / connects_s,
        memory_kib_a_connection=(memory_of(order.pid) - memory_before) / count / 1024,
        cpu_us_a_token=tokens_cpu_s / count * 1e6 if target.issuer else None,
        one_by_one_p50_ms=one_by_one_p50_ms,
        load_cores=(time.process_time() - own_cpu) / (time.monotonic() - started),
    )
    return result, links


async def _one_by_one(target: Target, hand: Sequence[int], count: int) -> float | None:
    """Open connections one after another, and close each. Return the median of their times in milliseconds."""
    tokens = await take_all(target, [hand] * count, parallel=1) if target.issuer else [Token()] * count
    took: list[float] = []
    for token in tokens:
        began = time.monotonic()
        link = await connect(target, hand, token)
        took.append(time.monotonic() - began)
        link.close()
    await asyncio.sleep(SETTLE_S)
    return quantile(sorted(took), 0.5, unit=1e-3)


async def arrive(order: Order) -> tuple[Arrived, dict[Link, asyncio.Task[None]]]:
    """Let all browsers come at once; returns when each has a connection or is lost."""
    target = order.target
    links: dict[Link, asyncio.Task[None]] = {}
    refusals: Counter[str] = Counter()
    waits: list[float] = []
    given_up: list[int] = []

    async def attempt(number: int) -> Link:
        token, hand = Token(), range(len(target.channels))
        if target.issuer:
            with contextlib.closing(await Link.open(target.issuer)) as issuer:
                token = await take_token(issuer, target, hand, number)
        return await connect(target, hand, token)

    async def browser(number: int) -> None:
        began_at = time.monotonic()
        for _ in range(ATTEMPTS):
            pause_s = FIRST_BACK_OFF_S
            try:
                link = await attempt(number)
            except Refused as refused:
                refusals[f"{refused.what}: {refused.status or refused}"] += 1
                pause_s = refused.retry_after_s or pause_s
            except OSError as error:
                refusals[f"link: {reason(error)}"] += 1
            else:
                links[link] = asyncio.create_task(_answer_pings(link))
                waits.append(time.monotonic() - began_at)
                return
            await asyncio.sleep(pause_s)
        given_up.append(number)

    started = time.monotonic()
    browsers = map(browser, range(order.connections))
    with contextlib.suppress(TimeoutError):
        await run_clients(browsers, lambda: len(waits) + len(given_up), stall_s=GIVE_UP_S, tells=True)
    result = Arrived(
        connections=order.connections,
        lost=order.connections - sum(link.socket.fileno() >= 0 for link in links),
        refusals=dict(refusals),
        refused=refusals.total(),
        max_ms=max(waits) * 1e3 if waits else None,
        connects_per_s=len(waits) / (time.monotonic() - started),
    )
    return result, links


async def _answer_pings(link: Link) -> None:
    """Answer pings, as every browser does, until the connection ends."""
    try:
        while True:
            link.received = b""
            await link.receive()
            for ping in _PING.finditer(link.received):
                payload = link.received[ping.end() : ping.end() + ping[1][0]]
                link.socket.send(b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload)
    except OSError:
        pass  # the server has closed it
    finally:
        link.close()


async def open_and_hold(order: Order) -> None:
    """Open all connections, report what they took, and hold them until standard input ends."""
    result, links = await (connect_all(order) if order.parallel else arrive(order))
    say(result=result)
    try:
        await asyncio.to_thread(wait_for_end)
    finally:
        for link in links:
            link.close()


if __name__ == "__main__":
    carry_out(Order, open_and_hold)
