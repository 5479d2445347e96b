"""Runs the work of a module's tests side by side, because it waits more than it computes.

Each test has a job of its own, in a thread with its own event loop, and the test returns or raises what its job does.
So each test keeps its name and its failure, and a module takes as long as its longest jobs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

AT_ONCE = 6
_WITHIN_S = 300.0

Job = Callable[..., Awaitable[None]]


class SideBySide:
    """The jobs of the tests of a module that were selected. The first ones begin at once."""

    def __init__(self, request: pytest.FixtureRequest, job: Job) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="side-by-side")
        self._jobs: dict[str, Future[None]] = {}
        for item in request.session.items:
            if isinstance(item, pytest.Function) and item.path == request.path:
                self._jobs[item.nodeid] = self._threads.submit(_run, job, item.callspec.params)

    def result(self, request: pytest.FixtureRequest) -> None:
        """Wait for the end of a test's job, and raise what it raised."""
        self._jobs[request.node.nodeid].result()

    def close(self) -> None:
        """Let no more jobs begin, and wait for those that run."""
        self._threads.shutdown(cancel_futures=True)


def _run(job: Job, parameters: dict[str, Any]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(_WITHIN_S):
            await job(**parameters)

    asyncio.run(bounded())


def side_by_side(request: pytest.FixtureRequest, job: Job) -> Iterator[SideBySide]:
    """Run `job` with the parameters of each test of a module. This is the body of a fixture of the module's scope."""
    jobs = SideBySide(request, job)
    yield jobs
    jobs.close()
