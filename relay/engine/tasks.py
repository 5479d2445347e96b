"""Tasks of the engine's parts, which run as long as the node does.

Callers wait for these tasks. One that ended because of a fault in the relay would leave them waiting without a word. If
a reader ended, revocations and prices would stop unseen. So there is one place that starts them again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

AGAIN_S = (0.05, 5.0)
"""Shortest and longest wait before a task that failed is started again. It doubles with each failure in a row."""
_LASTED_S = 30.0
"""A task that ran for so long has worked, so the next failure is not one in a row."""

log = structlog.get_logger("relay.engine")


async def _nobody_waits(_error: Exception) -> None:
    """Nobody waits for a step of the task."""


class LastingTask:
    """Runs `run` in a task until `aclose`. An exception is logged and counted, and `run` is called again.

    `recover` is called in between, with the error: it fails the callers that waited for the step that failed.
    """

    def __init__(
        self,
        run: Callable[[], Awaitable[None]],
        *,
        name: str,
        recover: Callable[[Exception], Awaitable[None]] = _nobody_waits,
    ) -> None:
        self._run = run
        self._name = name
        self._recover = recover
        self.restarts = 0
        """How often it failed and was started again. Each time is a fault of the relay, and the log has it."""
        self._task = asyncio.create_task(self._keep_running(), name=f"relay-engine-{name}")

    def stop(self) -> None:
        """End the task. Then call `aclose`."""
        self._task.cancel()

    async def aclose(self) -> None:
        """End the task, and wait for its end."""
        self.stop()
        await asyncio.wait(
            [self._task]
        )  # `await self._task` would take a cancellation of the caller for the task's

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        shortest, longest = AGAIN_S
        pause = shortest
        while True:
            began = loop.time()
            try:
                await self._run()
                _ended()
            except Exception as error:  # whatever it is: see the head of this module
                self.restarts += 1
                log.exception(
                    "a task of the engine failed; it is started again",
                    task=self._name,
                    restarts=self.restarts,
                )
                await self._recover(error)
            pause = shortest if loop.time() - began > _LASTED_S else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)


async def close_all(*closers: Callable[[], Awaitable[None]]) -> None:
    """Call each, one after the other. If one fails, or the caller is cancelled meanwhile, the others are called too."""
    async with contextlib.AsyncExitStack() as stack:
        for closer in reversed(closers):
            stack.push_async_callback(closer)


def _ended() -> NoReturn:
    raise RuntimeError("the task ended, which it never should")
