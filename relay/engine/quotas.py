"""Quotas of publishers over several nodes.

A node decides alone for 50 ms, by a bucket of its own: publishing must not wait for a reply before each message. Then
it tells the engine what was used, and its bucket gets the level of the bucket that all nodes share. What the nodes have
used together beyond the quota is a debt: nobody gets more until it is paid back. So in the long run the quota holds
over all nodes, and at once each node may let through one burst.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from relay.core.errors import UnavailableError
from relay.engine.connection import RefusedError
from relay.engine.line import Lines
from relay.engine.options import EngineOptions
from relay.engine.scripts import script
from relay.engine.tasks import LastingTask, close_all
from relay.limits.quotas import Quota

LEASE_S = 0.05
_ANSWER_WITHIN_S = 0.5


class EngineQuotas:
    """Keeps the quotas of this node in step with those of the others. Close it with `aclose`.

    `quotas` returns the quotas by publisher; set it when they are there. `clock` replaces the engine's,
    in tests, and `steady` is that of the quotas.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        clock: Callable[[], float] | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quotas: Callable[[], Mapping[str, Quota]] = dict
        self._options = options
        self._clock = clock
        self._steady = steady
        self._lines = Lines(options, "p", name="quotas", answer_within_s=_ANSWER_WITHIN_S)
        self._task: LastingTask | None = None

    @property
    def restarts(self) -> int:
        """How often a task of these quotas failed and was started again."""
        return self._lines.restarts + (0 if self._task is None else self._task.restarts)

    def start(self) -> None:
        """Share what is used from now on."""
        self._task = LastingTask(self._run, name="quotas-share")

    async def aclose(self) -> None:
        """Close the connections."""
        task = [] if self._task is None else [self._task.aclose]
        await close_all(*task, self._lines.aclose)

    async def share(self) -> None:
        """Tell the engine what was used since the last time, and take over the level that all nodes share.

        If the engine does not answer, this node goes on with its own bucket, and tells it later.
        """
        used = {name: quota for name, quota in self.quotas().items() if quota.used != (0, 0)}
        await asyncio.gather(*(self._share(name, quota) for name, quota in used.items()))

    async def _share(self, name: str, quota: Quota) -> None:
        used = quota.used
        line = self._lines.of(name)
        key = self._options.key(line.shard, f"{name}:{quota.terms.rate}:{quota.terms.byte_rate}")
        arguments: list[str | float] = ["" if self._clock is None else self._clock()]
        for (rate, burst), count in zip(quota.rates, used, strict=True):
            arguments += [rate, burst, count]
        try:
            messages, bytes_ = await line.call(script("quota"), [key], arguments)
        except (
            UnavailableError,
            RefusedError,
        ):  # the line has logged it; publishing fails without the engine
            return
        quota.share(self._steady(), used, (float(messages), float(bytes_)))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S)
            await self.share()
