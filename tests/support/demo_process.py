"""`relay demo` as a user starts it: a process of its own on free ports, stopped with Ctrl-C's signal."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 60
"""Generating keys and starting Python three times takes seconds on a busy machine."""

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@asynccontextmanager
async def running_demo() -> AsyncIterator[str]:
    """Start the demo, yield the address that it prints, and stop it.

    Raises:
        AssertionError: if it ends before it prints an address, or does not end properly after SIGINT; with all
            that it has written.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "demo", "--port", "0", "--stream-port", "0", "--internal-port", "0"),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output: list[str] = []
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read() -> None:
        # to the end, so that the demo never waits for a full pipe
        assert process.stdout is not None
        async for line in process.stdout:
            output.append(line.decode(errors="replace"))
            if (found := _ADDRESS.search(output[-1])) and not address.done():
                address.set_result(found[0])
        if not address.done():
            address.set_exception(AssertionError("relay demo ended early:\n" + "".join(output)))

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(START_S):
            origin = await address
        yield origin
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
    assert process.returncode in (0, 130), f"exit code {process.returncode}:\n{''.join(output)}"
    assert "Traceback" not in "".join(output), "".join(output)
