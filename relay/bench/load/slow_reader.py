"""A reader that is too slow, as a program: `python -m relay.bench.load.slow_reader`.

It opens one connection with a small receive buffer, so that the kernel hides little, and reads so many bytes a second
from it; with `rate_bytes` 0, none at all. A server that queues for it lets the age of its newest price grow without
end. With `work_s` it is the Python client, whose caller works for so long on each price.
"""

import asyncio
import re
import socket
import time

import msgspec

from relay.bench.load.clients import Target, close_reason, open_all
from relay.bench.load.orders import carry_out, say, wait_for_end
from relay.bench.load.subscribers import quantile
from relay.bench.load.ticks import Ticks
from relay.client import Snapshot, Subscriber, Update, fetch_token

RECEIVE_BYTES = 8192
STEP_S = 0.05
"""A read each 50 ms at most."""
TAIL_BYTES = 4096
"""What is searched for the newest price: far more than one."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to read, how fast, and for how long."""

    target: Target
    ticks: Ticks
    seconds: float
    rate_bytes: int = 0
    work_s: float = 0.0


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. Ages are those of the newest price at each read, over the last half of the time.

    `ageing_ms_per_s` is the growth of the age in a second, between the last two quarters; None where one of them has no
    price. `closed` is a sentence if the server ended the connection, else "".
    """

    age_p50_ms: float | None
    age_max_ms: float | None
    ageing_ms_per_s: float | None
    closed: str


async def open_and_read(order: Order) -> None:
    """Open the connection, read from it or not, and hold it."""
    if order.work_s:
        say(open=0)
        say(result=await _call(order))
        wait_for_end()
    hand = tuple(range(len(order.target.channels)))
    [link] = await open_all(order.target, [hand], receive_bytes=RECEIVE_BYTES)
    say(open=link.socket.getsockname()[1])
    if order.rate_bytes:
        say(result=_read(link.socket, order))
    wait_for_end()


async def _call(order: Order) -> Read:
    target, started = order.target, time.monotonic()
    ages: list[tuple[float, float]] = []

    async def token() -> str:
        return (await fetch_token(target.issuer, target.sessions[0], channels=target.channels)).token

    async with Subscriber(target.stream, token) as prices:
        await prices.subscribe(target.channels)
        async for event in prices:
            if (at := time.monotonic() - started) >= order.seconds:
                break
            if isinstance(event, Update | Snapshot):
                ages.append((at, (time.monotonic_ns() - event.data["t"]) / 1e6))
                await asyncio.sleep(order.work_s)
    return _report(ages, order, closed="")


def _read(connection: socket.socket, order: Order) -> Read:
    newest = re.compile(re.escape(order.ticks.marker) + rb"(\d+)\D")
    connection.settimeout(STEP_S)
    started = time.monotonic()
    ages: list[tuple[float, float]] = []
    tail, closed = b"", ""
    while (at := time.monotonic() - started) < order.seconds and not closed:
        try:
            data = connection.recv(max(1, int(order.rate_bytes * STEP_S)))
        except TimeoutError:
            continue
        except OSError as error:
            closed = f"The slow reader's connection failed: {error.strerror or error}."
            break
        if not data:
            closed = f"The server closed the slow reader's connection. {close_reason(tail)}".strip()
        tail = (tail + data)[-TAIL_BYTES:]
        if made := newest.findall(tail):
            ages.append((at, (time.monotonic_ns() - int(made[-1])) / 1e6))
        time.sleep(len(data) / order.rate_bytes)
    return _report(ages, order, closed=closed)


def _report(ages: list[tuple[float, float]], order: Order, *, closed: str) -> Read:
    def age(begin: float, end: float, share: float = 0.5) -> float | None:
        """Return a quantile of the ages in a part of the time, which is from 0 to 1."""
        return quantile(sorted(age for at, age in ages if begin <= at / order.seconds < end), share)

    third, last = age(0.5, 0.75), age(0.75, 2)
    return Read(
        age_p50_ms=age(0.5, 2),
        age_max_ms=age(0.5, 2, 1.0),
        ageing_ms_per_s=None if third is None or last is None else (last - third) / (order.seconds / 4),
        closed=closed,
    )


if __name__ == "__main__":
    carry_out(Order, open_and_read)
