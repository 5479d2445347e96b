"""Publishes a run's ticks to a relay at their pace, over one kept-alive connection, in a process of its own.

A tick that is due alone is one POST /v1/publish. Ticks that are due together, because the rate is high or the
pace is "as fast as it goes", are one POST /v1/publish/batch: single requests would measure the HTTP server and
not the fan-out. Due times are counted from the start, so that the pace does not drift.

`python -m relay.bench.load.publisher` is told by lines, and the yardstick answers the same ones:

    in   {"ticks": {…}, "url": …, "key": …}
    out  {"ready": true}
    in   {"go": true}       out  {"published": n}               now and then
                            out  {"done": [n, …], "seconds": s}  so many on each channel: after the last tick, or
    in   {"stop": true}                                          when told to stop
    in   {"finish": true}   out  {"finished": true}              all end marks are out
"""

import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from relay.bench import BenchError
from relay.bench.load.http_post import Poster
from relay.bench.load.orders import Gone, is_told, read_line, read_order, say
from relay.bench.load.ticks import Tick, Ticks
from relay.core.errors import RelayError

TELL_EVERY_S = 0.25
MAX_PAUSE_S = 0.1
"""Longest sleep before looking for an order."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish, and where."""

    ticks: Ticks
    url: str
    key: str

    def __repr__(self) -> str:
        """Show where, and not with which key."""
        return f"Order(url={self.url!r})"


class _Result(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Results(msgspec.Struct):
    results: list[_Result]


class TickPublisher:
    """Publishes with one publisher key."""

    def __init__(self, url: str, key: str) -> None:
        self._poster = Poster(url)
        self._key = key

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()

    def publish_all(self, ticks: Ticks, *, goes_on: Callable[[int, float], bool]) -> list[int]:
        """Publish the ticks at their pace; returns how many went to each channel.

        `goes_on` is called between requests with the number that are out and the seconds for which nothing is due;
        it may use them, and False ends the publishing.

        Raises:
            BenchError: if the relay refuses one, or can't be reached.
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
        """Publish every channel's end mark.

        Raises:
            BenchError: as `publish_all`.
        """
        drafts = [ticks.end_draft(place) for place in range(len(ticks.channels))]
        for start in range(0, len(drafts), ticks.together):
            self._publish(drafts[start : start + ticks.together])

    def _publish(self, drafts: Sequence[bytes]) -> None:
        if len(drafts) == 1:
            answer = self._poster.post("/v1/publish", drafts[0], bearer=self._key)
        else:
            answer = self._poster.post(
                "/v1/publish/batch", b"\n".join(drafts), bearer=self._key, content_type="application/x-ndjson"
            )
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


def main() -> None:
    """Carry out one order."""
    try:
        order = msgspec.json.decode(read_line(), type=Order)
        publisher = TickPublisher(order.url, order.key)
        say(ready=True)
        read_order()  # go
        started = told_at = time.monotonic()

        def goes_on(done: int, wait_s: float) -> bool:
            nonlocal told_at
            if is_told(min(wait_s, MAX_PAUSE_S)):
                read_order()  # stop
                return False
            if (now := time.monotonic()) - told_at > TELL_EVERY_S:
                told_at = now
                say(published=done)
            return True

        counts = publisher.publish_all(order.ticks, goes_on=goes_on)
        say(done=counts, seconds=time.monotonic() - started)
        while "finish" not in read_order():  # a stop may have crossed with the last tick
            pass
        publisher.publish_ends(order.ticks)
        say(finished=True)
        read_order()  # its end
    except RelayError as error:
        say(error=str(error))
    except (Gone, BrokenPipeError):
        sys.exit(0)


if __name__ == "__main__":
    main()
