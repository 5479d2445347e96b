"""Running the demo: start the backend and the relay as processes, publish the market's quotes, and stop all parts.

A process that ends is started again, as an orchestrator would do it: so the page shows what a restart looks like. The
demo ends with an error if that does not help.
"""

import contextlib
import itertools
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from relay.client.backoff import Backoff
from relay.client.errors import PublishError
from relay.client.publisher import Publisher
from relay.core.errors import RelayError
from relay.demo.deployment import DemoDeployment, create_deployment, write_settings
from relay.demo.market import INSTRUMENTS, Market
from relay.demo.processes import DemoProcess
from relay.recordings import LineProblem, Replay

PUBLISH_ATTEMPTS, PUBLISH_WAIT_S, PUBLISH_TIMEOUT_S = 60, 1.0, 5.0
"""Attempts of the market at a relay that restarts: every half second on average, for longer than a start may take."""

ACCESS_S = 60
"""Life of an access token: in a real deployment 15 minutes, here so short that users see how it is renewed."""

MAX_PROBLEMS = 5
"""Lines of a recording that are named before a summary. A file of another kind has thousands."""

_Batches = AsyncIterator[Sequence[tuple[str, Mapping[str, object]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The options of `relay demo`. A port of 0 takes a free one; without `replay` the market is simulated."""

    port: int
    stream_port: int
    internal_port: int
    origin: str = ""
    replay: Sequence[Path] = ()
    speed: float = 1.0


async def run_demo(
    options: DemoOptions,
    *,
    announce: Callable[[DemoDeployment, str, int], None],
    report: Callable[[str], None],
) -> None:
    """Run the demo until SIGINT or SIGTERM.

    `announce` is called when the page can be opened, with the deployment, the market's name and the number of the
    relay's process. `report` gets lines for the user.

    Raises:
        ConfigurationError: if a port is taken, a recording can't be read, or a process does not start, or
            ends too often.
        PublishError: if the relay does not accept the market's quotes.
    """
    source, symbols, batches = _market(options, report)
    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        deployment = create_deployment(
            Path(folder),
            http=options.port,
            stream=options.stream_port,
            internal=options.internal_port,
            origin=options.origin,
        )
        with deployment.log_file.open("w") as log:
            async with contextlib.AsyncExitStack() as stack:
                backend = DemoProcess("The backend", "relay.demo.backend", (), log=log)
                relay = DemoProcess(
                    "The relay",
                    "relay.demo.serve",
                    (
                        "--config",
                        str(deployment.settings_file),
                        "--source",
                        source,
                        "--symbols",
                        str(symbols),
                    ),
                    log=log,
                )
                secret = ("--secret-file", str(deployment.secret_file), "--access-s", str(ACCESS_S))
                backend.arguments = ("--port", "0", *secret)
                stack.push_async_callback(backend.stop)
                address = await backend.start()
                backend.arguments = ("--port", address.rpartition(":")[2], *secret)  # the settings name it
                write_settings(deployment, backend=address)
                stack.push_async_callback(relay.stop)
                await relay.start()
                announce(deployment, source, relay.pid)
                await _until_a_signal(
                    partial(backend.keep_running, report),
                    partial(relay.keep_running, report),
                    partial(_publish, deployment, batches(), report),
                )


def _market(options: DemoOptions, report: Callable[[str], None]) -> tuple[str, int, Callable[[], _Batches]]:
    """Return the market's name, how many symbols it has (0 if that is unknown), and its quotes."""
    if not options.replay:
        return "simulated market", len(INSTRUMENTS), Market(random.Random()).batches  # noqa: S311  # prices, no secrets
    numbers = itertools.count()

    def note(problem: LineProblem) -> None:
        number = next(numbers)
        if number < MAX_PROBLEMS:
            report(str(problem))
        elif number == MAX_PROBLEMS:
            report("More lines of the recording can't be read.")

    replay = Replay(
        options.replay,
        speed=options.speed,
        loop=True,
        trades=None,  # the page shows prices, and the simulated market has no trades either
        on_problem=note,
    )
    names = ", ".join(path.name.removesuffix(".gz") for path in options.replay)
    return f"recorded: {names} at {options.speed:g}x", 0, replay.batches


async def _publish(deployment: DemoDeployment, batches: _Batches, report: Callable[[str], None]) -> None:
    publisher = Publisher(
        deployment.internal_url,
        deployment.publisher_key,
        attempts=PUBLISH_ATTEMPTS,
        timeout_s=PUBLISH_TIMEOUT_S,
        backoff=partial(Backoff, cap_s=PUBLISH_WAIT_S),
    )
    async with publisher:
        async for batch in batches:
            results = await publisher.publish_many(batch)
            if refused := [item for item in results if isinstance(item, PublishError)]:
                report(f"{len(refused)} quotes were refused: {refused[0]}")
    report("The recording has no more quotes.")


async def _until_a_signal(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run the tasks until SIGINT or SIGTERM, or until one of them fails. Then its error is raised."""
    errors: list[RelayError] = []
    async with anyio.create_task_group() as group:

        async def run(task: Callable[[], Awaitable[None]]) -> None:
            try:
                await task()
            except RelayError as error:  # raised below, where it is not in an exception group
                errors.append(error)
                group.cancel_scope.cancel()

        for task in tasks:
            group.start_soon(run, task)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
        group.cancel_scope.cancel()
    if errors:
        raise errors[0]
