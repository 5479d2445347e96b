"""Publishes a run's ticks to a relay at their pace, over one connection, with HTTP requests or with the Python SDK.

`python -m relay.bench.load.publisher` takes these orders, and so does the yardstick:

    in   {"ticks": {…}, "url": …, "key": …, "sdk": …}
    out  {"ready": true}
    in   {"go": true}     out  {"published": n}                 now and then
    in   {"stop": true}   out  {"published": n, "seconds": s}   after the last tick, or after the order to stop
                          out  {"finished": true}               all end marks are out

Due times are counted from the start, so that the pace does not drift.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from relay.bench import BenchError
from relay.bench.load.clients import IDLE_S, Link, post_request, reason
from relay.bench.load.orders import Published, carry_out, read_order, say, wait_for_end
from relay.bench.load.processes import STALL_S
from relay.bench.load.ticks import Tick, Ticks
from relay.client import Publisher

LOOK_EVERY = 256
"""Messages of the SDK between looks for an order, each of which is a system call."""
AHEAD_S = 0.001
"""A message of the SDK may go out so early: a sleep for each of 20,000 a second would cost more than sending it."""

GoesOn = Callable[[int, float], bool]
"""Called between requests with the number that are out and the seconds for which nothing is due.

It may wait so long, and False ends the publishing.
"""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish, where, and whether with the SDK."""

    ticks: Ticks
    url: str
    key: str
    sdk: bool = False

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"Order(url={self.url!r})"


class _Result(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Results(msgspec.Struct):
    results: list[_Result]


class HttpPublisher:
    """Publishes over one HTTP connection that is kept alive.

    A tick that is due alone is one POST /v1/publish. Ticks that are due together, because the rate is high or there is
    no pace, are one POST /v1/publish/batch: single requests would measure the HTTP server and not the fan-out. All
    methods raise BenchError if the relay refuses a tick, or can't be reached.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._link: Link | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()

    async def publish_all(self, ticks: Ticks, *, goes_on: GoesOn) -> list[int]:
        """Publish the ticks at their pace; returns how many went to each channel."""
        counts = [0] * len(ticks.channels)
        started = time.monotonic()
        done = 0
        batch: list[Tick] = []
        for tick in ticks.due():
            is_due = tick.due_s <= time.monotonic() - started
            if batch and (not is_due or len(batch) == ticks.together):
                await self._publish([ticks.draft(one.channel, ticks.value(one)) for one in batch])
                done += len(batch)
                batch.clear()
                if not goes_on(done, 0.0):
                    return counts
            while (wait := tick.due_s - (time.monotonic() - started)) > 0:
                if not goes_on(done, wait):
                    return counts
            batch.append(tick)
            counts[tick.channel] += 1
        if batch:
            await self._publish([ticks.draft(one.channel, ticks.value(one)) for one in batch])
        return counts

    async def publish_ends(self, ticks: Ticks, counts: Sequence[int]) -> None:
        """Publish the end mark of every channel, which has had so many ticks."""
        drafts = [ticks.draft(place, ticks.end_value(place, count)) for place, count in enumerate(counts)]
        for start in range(0, len(drafts), ticks.together):
            await self._publish(drafts[start : start + ticks.together])

    async def _publish(self, drafts: Sequence[bytes]) -> None:
        is_batch = len(drafts) > 1
        path, kind = ("/v1/publish/batch", "x-ndjson") if is_batch else ("/v1/publish", "json")
        body = b"\n".join(drafts)
        request = post_request(self._url, path, body, bearer=self._key, content_type=f"application/{kind}")
        try:
            async with asyncio.timeout(STALL_S):
                if self._link is None or time.monotonic() - self._link.used_at > IDLE_S:
                    self.close()
                    self._link = await Link.open(self._url)
                answer = await self._link.call(request)
        except TimeoutError:
            raise BenchError(f"{self._url}{path} did not answer for {STALL_S:.0f} s.") from None
        except OSError as error:
            raise BenchError(f"{self._url} can't be reached: {reason(error)}.") from None
        if answer.status != 200:
            raise BenchError(f"The relay refused to publish: {answer.explain()}")
        for result in msgspec.json.decode(answer.body, type=_Results).results if is_batch else []:
            if result.code:
                raise BenchError(f"The relay refused to publish: {result.code} {result.message}")


class SdkPublisher:
    """Publishes with the Python SDK, as a backend does: all methods return when every message is settled."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish_all(self, ticks: Ticks, *, goes_on: GoesOn) -> list[int]:
        """Publish the ticks at their pace; returns how many went to each channel."""
        counts = [0] * len(ticks.channels)
        started = time.monotonic()
        for done, tick in enumerate(ticks.due()):
            if (wait := tick.due_s - (time.monotonic() - started)) > AHEAD_S:
                await asyncio.sleep(wait)
            if done % LOOK_EVERY == 0 and not goes_on(done, 0.0):
                break
            await self._publisher.send(ticks.channels[tick.channel], ticks.value(tick))
            counts[tick.channel] += 1
        await self._publisher.flush()
        return counts

    async def publish_ends(self, ticks: Ticks, counts: Sequence[int]) -> None:
        """Publish the end mark of every channel, which has had so many ticks."""
        for place, count in enumerate(counts):
            await self._publisher.send(ticks.channels[place], ticks.end_value(place, count))
        await self._publisher.flush()


@contextlib.asynccontextmanager
async def _publisher(order: Order) -> AsyncIterator[HttpPublisher | SdkPublisher]:
    if order.sdk:
        async with Publisher(order.url, order.key) as sdk:
            yield SdkPublisher(sdk)
    else:
        with contextlib.closing(HttpPublisher(order.url, order.key)) as http:
            yield http


async def publish(order: Order) -> None:
    """Publish everything, and then the end marks."""
    async with _publisher(order) as publisher:
        say(ready=True)
        read_order()  # go
        started = time.monotonic()
        counts = await publisher.publish_all(order.ticks, goes_on=Published().goes_on)
        say(published=sum(counts), seconds=time.monotonic() - started)
        await publisher.publish_ends(order.ticks, counts)
        say(finished=True)
        wait_for_end()


if __name__ == "__main__":
    carry_out(Order, publish)
