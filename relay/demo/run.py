"""Running the demo: start the backend and the relay as processes, publish the market's quotes, and stop all parts."""

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
import anyio.abc
from anyio.streams.text import TextReceiveStream

from relay.client.errors import PublishError
from relay.client.publisher import Publisher
from relay.core.errors import ConfigurationError
from relay.demo.deployment import DemoDeployment, create_deployment, write_settings
from relay.demo.market import Market
from relay.recordings import Replay

START_WITHIN_S = 20
STOP_WITHIN_S = 1.5

_Batches = AsyncIterator[Sequence[tuple[str, Mapping[str, object]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The options of `relay demo`. A port of 0 takes a free one; without `replay` the market is simulated."""

    port: int
    stream_port: int
    internal_port: int
    replay: Sequence[Path] = ()
    speed: float = 1.0


async def run_demo(
    options: DemoOptions, *, announce: Callable[[DemoDeployment, str], None], report: Callable[[str], None]
) -> None:
    """Run the demo until SIGINT or SIGTERM.

    `announce` is called when the page can be opened, with the deployment and the market's name. `report` gets lines for
    the user.

    Raises:
        ConfigurationError: if a port is taken, a recording can't be read, or a process does not start.
    """
    source, batches = _market(options, report)
    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        deployment = create_deployment(
            Path(folder), http=options.port, stream=options.stream_port, internal=options.internal_port
        )
        with deployment.log_file.open("w") as log:
            async with contextlib.AsyncExitStack() as stack:
                address = await _start(
                    stack,
                    log,
                    "relay.demo.backend",
                    "--port",
                    "0",
                    "--secret-file",
                    str(deployment.secret_file),
                )
                write_settings(deployment, backend=address.strip())
                await _start(
                    stack,
                    log,
                    "relay.demo.serve",
                    "--config",
                    str(deployment.settings_file),
                    "--source",
                    source,
                )
                announce(deployment, source)
                await _play(deployment, batches(), report)


def _market(options: DemoOptions, report: Callable[[str], None]) -> tuple[str, Callable[[], _Batches]]:
    if not options.replay:
        return "simulated market", Market(random.Random()).batches  # noqa: S311  # prices, no secrets
    replay = Replay(
        options.replay,
        speed=options.speed,
        loop=True,
        trades=None,  # the page shows prices, and the simulated market has no trades either
        on_problem=lambda problem: report(str(problem)),
    )
    names = ", ".join(path.name.removesuffix(".gz") for path in options.replay)
    return f"recorded: {names} at {options.speed:g}x", replay.batches


async def _play(deployment: DemoDeployment, batches: _Batches, report: Callable[[str], None]) -> None:
    async with anyio.create_task_group() as group:

        async def publish() -> None:
            async with Publisher(deployment.internal_url, deployment.publisher_key) as publisher:
                async for batch in batches:
                    try:
                        refused = [
                            item
                            for item in await publisher.publish_many(batch)
                            if isinstance(item, PublishError)
                        ]
                    except PublishError as error:
                        report(f"The market can't publish its quotes: {error}")
                        group.cancel_scope.cancel()
                        return
                    if refused:
                        report(f"{len(refused)} quotes were refused: {refused[0]}")
            report("The recording has no more quotes.")

        group.start_soon(publish)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
        group.cancel_scope.cancel()


async def _start(stack: contextlib.AsyncExitStack, log: IO[str], module: str, *arguments: str) -> str:
    """Start a module as a process and return the first line that it prints, which means that it is ready."""
    # a session of its own: Ctrl-C then reaches this process only, which stops the parts in their order
    process = await anyio.open_process(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )
    stack.push_async_callback(_stop, process)
    assert process.stdout is not None
    first = ""
    with anyio.move_on_after(START_WITHIN_S):
        async for text in TextReceiveStream(process.stdout):
            first += text
            if "\n" in first:
                return first.partition("\n")[0]
    said = (await anyio.Path(log.name).read_text(errors="replace")).strip().splitlines()
    raise ConfigurationError(f"{module} did not start: {said[-1] if said else 'it printed no error'}")


async def _stop(process: anyio.abc.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(STOP_WITHIN_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        await process.aclose()
