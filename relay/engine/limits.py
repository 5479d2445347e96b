"""Request limits of several nodes: the windows of sessions and accounts are in the engine.

Its own script counts, and not the Redis storage of the `limits` package: redis-py's own retries would count a request
again after a lost reply, a call could not be bounded to 150 ms on a connection with the relay's log-in, and the package
could not give a request back. The rule is the one of `relay.limits.memory`.

A limit must not make requests wait for an engine that is away. If it does not answer in time, the window of this node
decides, which knows the requests that this node has let through. The engine is asked again a second later.
"""

import asyncio
import time
from collections.abc import Callable

import structlog
from limits import parse

from relay.core.errors import UnavailableError
from relay.core.log_limit import LogLimit
from relay.engine.connection import RefusedError
from relay.engine.line import Lines
from relay.engine.options import EngineOptions
from relay.engine.scripts import script
from relay.limits.base import RequestCounts
from relay.limits.memory import MemoryCounts

ANSWER_WITHIN_S = 0.15
_AGAIN_AFTER_S = 1.0
"""Seconds for which only this node counts after the engine did not answer: one request in a second waits for it."""

log = structlog.get_logger("relay.engine")


class EngineLimits:
    """Makes counts that all nodes share. Close it with `aclose`. `clock` replaces the engine's, in tests."""

    def __init__(self, options: EngineOptions, *, clock: Callable[[], float] | None = None) -> None:
        self.alone = 0
        """Requests that were counted on this node alone, because the engine did not answer in time."""
        self._options = options
        self._clock = clock
        self._lines = Lines(options, "w", name="limits", answer_within_s=ANSWER_WITHIN_S, repeats=False)
        self._away_until: dict[str, float] = {}
        self._log_limit = LogLimit()

    def counts(self, name: str, rate: str) -> RequestCounts:
        """Return the counts of a limit: a `MakeCounts`."""
        return _SharedCounts(self, name, rate)

    async def run(self, operation: str, key: str, amount: int, window_s: int) -> float | None:
        """Return the seconds to wait, 0.0 for none. None: the engine did not answer, so this node has to count."""
        now = asyncio.get_running_loop().time()
        line = self._lines.of(key)
        if now >= self._away_until.get(line.shard, 0.0):
            arguments = (operation, amount, window_s, "" if self._clock is None else self._clock())
            try:
                wait_ms = await line.call(script("count"), [self._options.key(line.shard, key)], arguments)
                return int(wait_ms) / 1000
            except (UnavailableError, RefusedError) as error:
                self._away_until[line.shard] = now + ANSWER_WITHIN_S + _AGAIN_AFTER_S
                self._report(str(error))
        self.alone += 1
        return None

    @property
    def restarts(self) -> int:
        """How often the task of a line failed and was started again."""
        return self._lines.restarts

    async def aclose(self) -> None:
        """Close the connections."""
        await self._lines.aclose()

    def _report(self, error: str) -> None:
        left_out = self._log_limit.admit("alone", time.monotonic())
        if left_out is not None:
            log.warning("limits count on this node alone", error=error, requests=self.alone)


class _SharedCounts:
    """See `relay.limits.base.RequestCounts`."""

    def __init__(self, shared: EngineLimits, name: str, rate: str) -> None:
        item = parse(rate)
        self._shared = shared
        # another rate is another window: a reload begins the counts again, as it does in memory
        self._name = f"{name}:{rate}:"
        self._terms = (item.amount, item.get_expiry())
        self._local = MemoryCounts(rate)

    async def hit(self, key: str) -> float:
        """See `RequestCounts.hit`."""
        wait_s = await self._shared.run("hit", self._name + key, *self._terms)
        if wait_s:
            return wait_s
        alone_s = await self._local.hit(key)  # known here if the engine goes away
        return alone_s if wait_s is None else 0.0

    async def give_back(self, key: str) -> None:
        """See `RequestCounts.give_back`."""
        await self._shared.run("back", self._name + key, *self._terms)
        await self._local.give_back(key)
