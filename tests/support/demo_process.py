"""`relay demo` as a user starts it: a process of its own on free ports, stopped with Ctrl-C's signal."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 60
"""Generating keys and starting Python three times takes seconds on a busy machine."""


@dataclass
class Demo:
    """A running demo. `output` is what it has printed so far."""

    process: asyncio.subprocess.Process
    output: str = ""
    ended: bool = False
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self) -> None:
        """Read to the end, so that the demo never waits for a full pipe."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._more:
                self.output += line.decode(errors="replace")
                self._more.notify_all()
        async with self._more:
            self.ended = True
            self._more.notify_all()

    async def said(self, pattern: str, *, times: int = 1) -> list[str]:
        """Wait until the demo has printed something `times` times, and return the last one's groups.

        Raises:
            AssertionError: if the demo ends before; with all that it has printed.
        """
        found: list[re.Match[str]] = []

        def is_said() -> bool:
            found[:] = re.finditer(pattern, self.output, re.MULTILINE)
            return len(found) >= times or self.ended

        async with asyncio.timeout(START_S), self._more:
            await self._more.wait_for(is_said)
        assert len(found) >= times, f"relay demo ended without printing {pattern!r}:\n{self.output}"
        return [found[-1][0], *found[-1].groups()]

    @property
    def origin(self) -> str:
        """The address of the page."""
        match = re.search(r"http://127\.0\.0\.1:\d+", self.output)
        assert match, self.output
        return match[0]


@asynccontextmanager
async def started_demo(*arguments: str) -> AsyncIterator[Demo]:
    """Start the demo, yield it when the page can be opened, and stop it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "demo"),
        *("--port", "0", "--stream-port", "0", "--internal-port", "0", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    demo = Demo(process)
    reading = asyncio.create_task(demo.read())
    try:
        await demo.said("^Ctrl-C stops it")
        yield demo
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await reading


@asynccontextmanager
async def running_demo(*arguments: str) -> AsyncIterator[Demo]:
    """Run the demo for the time of a test.

    Raises:
        AssertionError: if it does not end properly after SIGINT; with all that it has printed.
    """
    async with started_demo(*arguments) as demo:
        yield demo
    assert demo.process.returncode in (0, 130), f"exit code {demo.process.returncode}:\n{demo.output}"
    assert "Traceback" not in demo.output, demo.output
