"""Publishes a run's ticks to a relay at their pace, over one connection, with HTTP requests or with the Python SDK.

`python -m relay.bench.load.publisher` takes these orders, and so does the yardstick:
    in   {"ticks": {…}, "url": …, "key": …, "sdk": …}
    out  {"ready": true}
    in   {"go": true}     out  {"published": n}                 now and then
    in   {"stop": true}   out  {"published": n, "seconds": s}   after the last tick, or after the order to stop
                          all is acknowledged then; without a pace that counts in the seconds
                          out  {"finished": true}               all end marks are out
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import msgspec

from relay.bench import BenchError
from relay.bench.load.clients import KeptLink, post_request, reason
from relay.bench.load.orders import Published, carry_out, read_order, say, wait_for_end
from relay.bench.load.ticks import Tick, Ticks
from relay.client import Publisher

AHEAD_S = 0.001
"""A message of the SDK may go out so early: a sleep for each of 20,000 a second would cost more than sending it."""
MAX_PAUSE_S = 0.1
"""The longest sleep before the next look for an order."""

Opened = Callable[["Order"], contextlib.AbstractAsyncContextManager["TickPublisher"]]
Values = Iterable[tuple[int, bytes]]
"""Values to publish, each with the place of its channel."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish, where, and whether with the SDK."""

    ticks: Ticks
    url: str
    key: str
    sdk: bool = False

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"Order(url={self.url!r})"


class TickPublisher:
    """Publishes over one HTTP connection that is kept alive, or with the Python SDK, as a backend does.

    A tick that is due alone is one POST /v1/publish. Ticks that are due together, because the rate is high or there is
    no pace, are one POST /v1/publish/batch: single requests would measure the HTTP server and not the fan-out.
    """

    def __init__(self, order: Order, way: KeptLink | Publisher) -> None:
        self._order = order
        self._way = way
        self.ahead_s = AHEAD_S if order.sdk else 0.0

    async def publish(self, values: Values) -> None:
        """Publish values in one request, or give them to the SDK. Raises BenchError if the relay refuses one."""
        url, key, ticks = self._order.url, self._order.key, self._order.ticks
        if isinstance(self._way, Publisher):
            for place, value in values:
                await self._way.send(ticks.channels[place], value)
            return
        drafts = [ticks.draft(place, value) for place, value in values]
        is_batch = len(drafts) > 1
        path, kind = ("/v1/publish/batch", "x-ndjson") if is_batch else ("/v1/publish", "json")
        body = b"\n".join(drafts)
        request = post_request(url, path, body, bearer=key, content_type=f"application/{kind}")
        try:
            answer = await self._way.call(request)
        except OSError as error:
            raise BenchError(f"{url} can't be reached: {reason(error)}.") from None
        if answer.status != 200:
            raise BenchError(f"The relay refused to publish: {answer.explain()}")
        for result in msgspec.json.decode(answer.body)["results"] if is_batch else []:
            if "code" in result:
                raise BenchError(f"The relay refused to publish: {result['code']} {result['message']}")

    async def settle(self) -> None:
        """Wait until every message of the SDK has its answer; raises PublishError if one was refused."""
        if isinstance(self._way, Publisher):
            await self._way.flush()


@contextlib.asynccontextmanager
async def publisher_of(order: Order) -> AsyncIterator[TickPublisher]:
    """Open what publishes in the way that the order names, until the block ends."""
    if order.sdk:
        async with Publisher(order.url, order.key) as publisher:
            yield TickPublisher(order, publisher)
    else:
        with contextlib.closing(KeptLink(order.url)) as link:
            yield TickPublisher(order, link)


async def publish_all(publisher: TickPublisher, ticks: Ticks, goes_on: Callable[[int], bool]) -> list[int]:
    """Publish the ticks at their pace; returns how many went to each channel.

    `goes_on` is called between publications with the number that are out; False ends the publishing.
    """
    counts, done = [0] * len(ticks.channels), 0
    batch: list[Tick] = []
    started = time.monotonic()
    for tick in ticks.due():
        due_at = started + tick.due_s - publisher.ahead_s
        if batch and (due_at > time.monotonic() or len(batch) == ticks.together):
            await publisher.publish((one.channel, ticks.value(one)) for one in batch)
            done += len(batch)
            batch.clear()
        while not batch:
            if not goes_on(done):
                return counts
            if (wait_s := due_at - time.monotonic()) <= 0:
                break
            await asyncio.sleep(min(wait_s, MAX_PAUSE_S))
        batch.append(tick)
        counts[tick.channel] += 1
    await publisher.publish((one.channel, ticks.value(one)) for one in batch)
    return counts


async def publish_ends(publisher: TickPublisher, ticks: Ticks, counts: Sequence[int]) -> None:
    """Publish the end mark of every channel, which has had so many ticks."""
    ends = [(place, ticks.end_value(place, count)) for place, count in enumerate(counts)]
    for start in range(0, len(ends), ticks.together):
        await publisher.publish(ends[start : start + ticks.together])
    await publisher.settle()


async def publish(order: Order, opened: Opened = publisher_of) -> None:
    """Publish everything with what is `opened` for the order, and then the end marks."""
    async with opened(order) as publisher:
        say(ready=True)
        read_order()  # go
        started = time.monotonic()
        counts = await publish_all(publisher, order.ticks, Published().goes_on)
        paced_s = time.monotonic() - started
        await publisher.settle()
        seconds = paced_s if order.ticks.rate else time.monotonic() - started
        say(published=sum(counts), seconds=seconds)
        await publish_ends(publisher, order.ticks, counts)
        say(finished=True)
        wait_for_end()


if __name__ == "__main__":
    carry_out(Order, publish)
