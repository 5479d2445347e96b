"""Measure how old the prices are that a slow caller of the Python client gets: `python -m tests.support.slow_caller`.

A relay, a publisher of one channel and a subscriber run on this machine. The caller works a while on each event, once
with an `await` and once by blocking the event loop. A price may be one second and one event's work old.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from pathlib import Path

from relay.client import Publisher, Snapshot, Subscriber, Update, fetch_token
from tests.support.relay_process import PUBLISHER_KEY, Relay, running

CHANNEL = "prices.BTC-USD"


async def _publish(relay: Relay, rate: float, is_over: threading.Event) -> None:
    """Publish the current time, `rate` times a second."""
    async with Publisher(relay.internal_url, PUBLISHER_KEY) as publisher:
        while not is_over.is_set():
            await publisher.send(CHANNEL, time.time())
            await asyncio.sleep(1 / rate)


async def _oldest(relay: Relay, *, work_s: float, seconds: float, is_blocking: bool) -> tuple[float, int]:
    """Return the age of the oldest price when it was handed out, in seconds, and the number of prices."""
    session = relay.session()

    async def token() -> str:
        return (await fetch_token(relay.url, session, endpoint="prices")).token

    ages: list[float] = []
    async with Subscriber(f"{relay.stream_url}/ws/prices", token) as prices:
        await prices.subscribe(CHANNEL)
        ends_at = time.monotonic() + seconds
        async for event in prices:
            if isinstance(event, Update | Snapshot):
                ages.append(time.time() - float(event.data))
            if is_blocking:
                time.sleep(work_s)  # noqa: ASYNC251  # the caller that blocks is what is measured
            else:
                await asyncio.sleep(work_s)
            if time.monotonic() > ends_at:
                break
    return max(ages[1:]), len(ages)  # the first may be from before


async def _measure(relay: Relay, options: argparse.Namespace) -> None:
    for is_blocking in (False, True):
        oldest, count = await _oldest(
            relay, work_s=options.work, seconds=options.seconds, is_blocking=is_blocking
        )
        caller = "a blocking caller" if is_blocking else "an awaiting caller"
        sys.stdout.write(
            f"{caller}, {options.rate:g} prices/s, {options.work:g} s of work for each: "
            f"{count} prices in {options.seconds:g} s, the oldest {oldest:.2f} s old\n"
        )


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100, help="prices a second")
    parser.add_argument("--work", type=float, default=0.1, help="seconds of work a price")
    parser.add_argument("--seconds", type=float, default=30, help="length of each of the two runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as relay:
        asyncio.run(_with_publisher(relay, options))


async def _with_publisher(relay: Relay, options: argparse.Namespace) -> None:
    """Measure while a thread with an event loop of its own publishes, which the blocking caller does not stop."""
    is_over = threading.Event()
    publishing = asyncio.create_task(
        asyncio.to_thread(lambda: asyncio.run(_publish(relay, options.rate, is_over)))
    )
    try:
        await _measure(relay, options)
    finally:
        is_over.set()
        await publishing


if __name__ == "__main__":
    main()
