"""Publishes a run's ticks to a relay at their pace, over one HTTP connection that is kept alive.

A tick that is due alone is one POST /v1/publish. Ticks that are due together, because the rate is high or there is no
pace, are one POST /v1/publish/batch: single requests would measure the HTTP server and not the fan-out. Due times are
counted from the start, so that the pace does not drift.

`python -m relay.bench.load.publisher` takes these orders, and so does the yardstick:

    in   {"ticks": {…}, "url": …, "key": …}
    out  {"ready": true}
    in   {"go": true}       out  {"published": n}                now and then
                            out  {"done": [n, …], "seconds": s}  so many on each channel: after the last tick, or
    in   {"stop": true}                                          after the order to stop
    in   {"finish": true}   out  {"finished": true}              all end marks are out
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from relay.bench import BenchError
from relay.bench.load.opener import IDLE_S
from relay.bench.load.orders import Progress, carry_out, read_order, say, wait_for
from relay.bench.load.processes import STALL_S
from relay.bench.load.sockets import Answer, Link, Loop
from relay.bench.load.targets import post_request
from relay.bench.load.ticks import Tick, Ticks


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish, and where."""

    ticks: Ticks
    url: str
    key: str

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"Order(url={self.url!r})"


class _Result(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Results(msgspec.Struct):
    results: list[_Result]


class TickPublisher:
    """Publishes with one publisher key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._loop = Loop()
        self._link: Link | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.reset()

    def publish_all(self, ticks: Ticks, *, goes_on: Callable[[int, float], bool]) -> list[int]:
        """Publish the ticks at their pace; returns how many went to each channel.

        `goes_on` is called between requests with the number that are out and the seconds for which nothing is due. It
        may wait so long, and False ends the publishing. Raises BenchError if the relay refuses a tick, or can't be
        reached.
        """
        counts = [0] * len(ticks.channels)
        started = time.monotonic()
        done = 0
        batch: list[Tick] = []
        for tick in ticks.due():
            is_due = tick.due_s <= time.monotonic() - started
            if batch and (not is_due or len(batch) == ticks.together):
                self._publish([ticks.draft(one) for one in batch])
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
            self._publish([ticks.draft(one) for one in batch])
        return counts

    def publish_ends(self, ticks: Ticks) -> None:
        """Publish the end mark of every channel; raises what `publish_all` raises."""
        drafts = [ticks.end_draft(place) for place in range(len(ticks.channels))]
        for start in range(0, len(drafts), ticks.together):
            self._publish(drafts[start : start + ticks.together])

    def _publish(self, drafts: Sequence[bytes]) -> None:
        if len(drafts) == 1:
            answer = self._post("/v1/publish", drafts[0], "application/json")
        else:
            answer = self._post("/v1/publish/batch", b"\n".join(drafts), "application/x-ndjson")
        if answer.status != 200:
            raise BenchError(f"The relay refused to publish: {answer.explain()}")
        if len(drafts) == 1:
            return
        try:
            results = msgspec.json.decode(answer.body, type=_Results).results
        except msgspec.DecodeError:
            raise BenchError("What answers to the publisher is not a relay.") from None
        for result in results:
            if result.code:
                raise BenchError(f"The relay refused to publish: {result.code} {result.message}")

    def _post(self, path: str, body: bytes, content_type: str) -> Answer:
        if self._link is None or time.monotonic() - self._link.used_at > IDLE_S:
            self.close()
            self._link = Link(self._url, "http")
        request = post_request(self._url, path, body, bearer=self._key, content_type=content_type)
        try:
            return self._loop.complete(self._link.call(request), stall_s=STALL_S)
        except TimeoutError:
            raise BenchError(f"{self._url}{path} did not answer for {STALL_S:.0f} s.") from None
        except OSError as error:
            raise BenchError(f"{self._url} can't be reached: {error.strerror or error}.") from None


def publish(order: Order) -> None:
    """Publish everything, and the end marks when the order for them comes."""
    publisher = TickPublisher(order.url, order.key)
    say(ready=True)
    wait_for("go")
    started = time.monotonic()
    counts = publisher.publish_all(order.ticks, goes_on=Progress("published").goes_on)
    say(done=counts, seconds=time.monotonic() - started)
    wait_for("finish")
    publisher.publish_ends(order.ticks)
    say(finished=True)
    read_order()  # the end of standard input


if __name__ == "__main__":
    carry_out(Order, publish)
