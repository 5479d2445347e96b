"""Publishes a run's ticks to a relay at their pace, over one kept-alive connection.

A tick that is due alone is one POST /v1/publish. Ticks that are due together, because the rate is high or the
pace is "as fast as it goes", are one POST /v1/publish/batch: single requests would measure the HTTP server and
not the fan-out. Due times are counted from the start, so that the pace does not drift.
"""

import time
from collections.abc import Callable

import msgspec

from relay.bench import BenchError
from relay.bench.posting import Poster
from relay.bench.ticks import Ticks

MAX_TOGETHER = 32
"""Ticks in one request: parsing them holds the relay's loop for a millisecond, a frame of all has 5 KB."""


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

    def publish_all(
        self, ticks: Ticks, *, rate: float, count: int, published: Callable[[int], None]
    ) -> float:
        """Publish `count` ticks at `rate` a second (0: as fast as they are taken); returns the seconds it took.

        `published` is called with the number that are out. What it raises ends the publishing.

        Raises:
            BenchError: if the relay refuses one, or can't be reached.
        """
        started = time.monotonic()
        done = 0
        while done < count:
            due = count
            if rate:
                elapsed = time.monotonic() - started
                due = min(count, int(elapsed * rate) + 1)
                if due <= done:
                    time.sleep(max(0.0, done / rate - elapsed))
                    continue
            together = min(due - done, MAX_TOGETHER)
            if together == 1:
                self._publish(ticks.draft())
            else:
                self._publish_batch([ticks.draft() for _ in range(together)])
            done += together
            published(done)
        return time.monotonic() - started

    def publish_end(self, ticks: Ticks) -> None:
        """Publish the end mark.

        Raises:
            BenchError: as `publish_all`.
        """
        self._publish(ticks.end_draft())

    def _publish(self, draft: bytes) -> None:
        answer = self._poster.post("/v1/publish", draft, bearer=self._key)
        if answer.status != 200:
            raise BenchError(f"The relay refused to publish: {answer.explain()}")

    def _publish_batch(self, drafts: list[bytes]) -> None:
        answer = self._poster.post(
            "/v1/publish/batch", b"\n".join(drafts), bearer=self._key, content_type="application/x-ndjson"
        )
        if answer.status != 200:
            raise BenchError(f"The relay refused to publish: {answer.explain()}")
        try:
            results = msgspec.json.decode(answer.body, type=_Results).results
        except msgspec.DecodeError:
            raise BenchError("What answers to the publisher is not a relay.") from None
        for result in results:
            if result.code:
                raise BenchError(f"The relay refused to publish: {result.code} {result.message}")
