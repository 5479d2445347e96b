"""The demo's processes: started, started again when they end, and stopped."""

import contextlib
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, NoReturn

import anyio
import anyio.abc
from anyio.streams.text import TextReceiveStream

from relay.core.errors import ConfigurationError

START_WITHIN_S = 20
STOP_WITHIN_S = 1.5
MAX_ENDS, ENDS_WITHIN_S = 5, 60.0
"""A process that ends five times in a minute will not recover by another start."""


class DemoProcess:
    """A module that runs as a process.

    Args:
        name: what it is, as the first words of a sentence.
        module: what `python -m` runs. It prints a line when it is ready.
        arguments: its arguments. They may be changed before another start.
        log: gets what it writes to standard error.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], *, log: IO[str]) -> None:
        self.name = name
        self.arguments = arguments
        self._module = module
        self._log = log
        self._process: anyio.abc.Process | None = None

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process is not None, "the process was started"
        return self._process.pid

    async def start(self) -> str:
        """Start the process, and return the first line that it prints.

        Raises:
            ConfigurationError: if it prints no line within 20 seconds.
        """
        # a session of its own: Ctrl-C then reaches the demo only, which stops the processes in their order
        process = await anyio.open_process(
            [sys.executable, "-m", self._module, *self.arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None
        first = ""
        with anyio.move_on_after(START_WITHIN_S):
            async for text in TextReceiveStream(process.stdout):
                first += text
                if "\n" in first:
                    return first.partition("\n")[0]
        raise ConfigurationError(f"{self.name} did not start: {await self._last_words()}")

    async def keep_running(self, report: Callable[[str], None]) -> NoReturn:
        """Start the process again each time it ends. `report` gets a line for the user.

        Raises:
            ConfigurationError: if it does not start, or ends too often.
        """
        ends: deque[float] = deque(maxlen=MAX_ENDS)
        while True:
            assert self._process is not None, "the process was started"
            how = _ending(await self._process.wait())
            await self.stop()
            ends.append(anyio.current_time())
            if len(ends) == MAX_ENDS and ends[-1] - ends[0] < ENDS_WITHIN_S:
                raise ConfigurationError(
                    f"{self.name} ended {MAX_ENDS} times within a minute, the last time with {how}: "
                    f"{await self._last_words()}"
                )
            report(f"{self.name} ended with {how}. It is started again.")
            await self.start()
            report(f"{self.name} runs again, as process {self.pid}.")

    async def stop(self) -> None:
        """End the process, by force if it does not end soon."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(STOP_WITHIN_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.aclose()

    async def _last_words(self) -> str:
        said = (await anyio.Path(self._log.name).read_text(errors="replace")).strip().splitlines()
        return said[-1] if said else "it printed no error"


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
