"""`relay replay`: recorded market traffic, published again at its own pace.

If publishing is slower than the recording, nothing is left out: the replay is late and says by how much. On a terminal
it shows a progress bar; into a pipe it writes a line every five seconds and at the end.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from relay.cli.options import DEFAULT_URL, PublishKeyOption, UrlOption, require_publish_key
from relay.cli.output import run_to_exit, say_wait
from relay.client import BatchError, Publisher, PublishError
from relay.client.receipts import Result
from relay.core.errors import RelayError
from relay.core.quantities import counted
from relay.recordings import Replay
from relay.recordings.lines import Message

REPORT_S = 5.0
MAX_SHOWN = 20
"""Malformed lines and refusals that are shown. The others are only counted."""


def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Recordings, plain or gzip.")],
    *,
    speed: Annotated[float, typer.Option("--speed", help="Speed: 10 is ten times as fast.")] = 1.0,
    url: UrlOption = DEFAULT_URL,
    key: PublishKeyOption = "",
    channel_prefix: Annotated[
        str, typer.Option("--channel-prefix", help="The part of a quote's channel before the symbol.")
    ] = "prices",
    trades_prefix: Annotated[
        str, typer.Option("--trades-prefix", help='The same for trades; "" leaves trades out.')
    ] = "trades",
) -> None:
    """Publish recorded quotes and trades again, each to PREFIX.SYMBOL."""
    require_publish_key(key)
    notes = _Notes()
    recording = Replay(
        files,
        speed=speed,
        prices=channel_prefix,
        trades=trades_prefix,
        on_problem=lambda problem: notes.add(f"skipped {problem}"),
    )
    run_to_exit(
        _replay(
            recording,
            Publisher(url, key, on_reconnect=say_wait),
            notes,
            _hints(channel_prefix, trades_prefix),
        )
    )


def _hints(prices: str, trades: str) -> dict[str, str]:
    """Return what to do if a key may not publish quotes, or trades.

    Quotes and trades are two sets of channels, and a key may have only one of them. A refusal is shown once for a set,
    and not once for a symbol.
    """
    must = "The publisher's channels in relay.toml must include"
    return {
        "quote": f"{must} {prices}.>; --channel-prefix changes the prefix.",
        "trade": f'{must} {trades}.>; --trades-prefix "" leaves trades out.',
    }


async def _replay(recording: Replay, publisher: Publisher, notes: "_Notes", hints: dict[str, str]) -> int:
    report = _Report(recording)
    publishing = _Publishing(publisher, notes, hints)
    try:
        with report:
            async with publisher:
                async for batch in recording.batches():
                    report.count(await publishing.publish(batch))
    finally:
        notes.close()
        print(report.summary(refused=notes.refused))
    if not report.published.total():
        raise RelayError(
            "Nothing was published: there is no quote (<symbol>@bookTicker) and no trade (<symbol>@trade) "
            "in these files, or all were refused."
        )
    return 1 if recording.tally.malformed or notes.refused else 0


class _Publishing:
    """Publishes batches. It stops publishing to a channel after the key was refused there."""

    def __init__(self, publisher: Publisher, notes: "_Notes", hints: dict[str, str]) -> None:
        self._publisher = publisher
        self._notes = notes
        self._hints = hints
        self._forbidden: set[str] = set()

    async def publish(self, batch: list[Message]) -> Counter[str]:
        """Publish one batch. Return how many of its quotes and trades were accepted."""
        allowed = [message for message in batch if message[0] not in self._forbidden]
        # each attempt would be a record in the relay's audit log, some hundred times a second
        self._notes.refused += len(batch) - len(allowed)
        if not allowed:
            return Counter()
        try:
            results: list[Result] = await self._publisher.publish_many(allowed)
        except BatchError as error:
            raise RelayError(
                f"The replay stopped at a batch of {len(allowed)} messages: {error.message}"
            ) from None
        taken: Counter[str] = Counter()
        for message, result in zip(allowed, results, strict=True):
            if isinstance(result, PublishError):
                self._refuse(message, result)
            else:
                taken[_kind(message)] += 1
        return taken

    def _refuse(self, message: Message, error: PublishError) -> None:
        channel, said = message[0], f"{message[0]} was refused: {error.message}"
        if error.code == "forbidden":
            self._forbidden.add(channel)
            self._notes.refuse(f"{said} {self._hints[_kind(message)]}", once=_kind(message))
        else:
            self._notes.refuse(said, once=said)


def _kind(message: Message) -> str:
    return "trade" if "trade_id" in message[1] else "quote"


class _Notes:
    """Prints each problem once, and only the first `MAX_SHOWN`."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._said = self._unsaid = 0
        self.refused = 0

    def refuse(self, text: str, *, once: str) -> None:
        """Count a refusal. Of those with the same `once`, the first is printed."""
        self.refused += 1
        if once not in self._seen:
            self._seen.add(once)
            self.add(text)

    def add(self, text: str) -> None:
        if self._said >= MAX_SHOWN:
            self._unsaid += 1
            return
        self._said += 1
        sys.stderr.write(f"{text}\n")

    def close(self) -> None:
        if self._unsaid:
            sys.stderr.write(f"and {self._unsaid:,} more like these\n")


class _Report:
    """The progress of the replay: a bar on a terminal, otherwise a line every `REPORT_S`."""

    def __init__(self, recording: Replay, clock: Callable[[], float] = time.monotonic) -> None:
        self._recording = recording
        self._clock = clock
        self._began = self._last = clock()
        self._last_published = 0
        self._most_behind_s = 0.0
        self.published: Counter[str] = Counter()
        console = Console(stderr=True)
        self._on_terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("replay"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not self._on_terminal,
        )
        self._task = self._bar.add_task("replay", total=1.0, text="")

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def count(self, taken: Counter[str]) -> None:
        self.published += taken
        self._most_behind_s = max(self._most_behind_s, self._recording.lag_s)
        now = self._clock()
        every = 0.5 if self._on_terminal else REPORT_S
        if now - self._last < every:
            return
        total = self.published.total()
        rate = (total - self._last_published) / (now - self._last)
        self._last, self._last_published = now, total
        text = f"{self._counts()}, {rate:,.0f}/s, {self._recording.lag_s:.2f} s behind"
        self._bar.update(self._task, completed=self._recording.share_done, text=text)
        if not self._on_terminal:
            print(f"{self._recording.share_done:.0%}, {text}", flush=True)

    def summary(self, *, refused: int) -> str:
        tally = self._recording.tally
        seconds = self._clock() - self._began
        parts = [f"{self._counts()} published in {seconds:.1f} s"]
        if self._most_behind_s >= 0.1:
            parts.append(f"at most {self._most_behind_s:.1f} s behind")
        parts += [
            f"{counted(count, 'line')} of {kind} skipped" for kind, count in sorted(tally.skipped.items())
        ]
        if tally.malformed:
            parts.append(counted(tally.malformed, "malformed line"))
        if refused:
            parts.append(f"{refused:,} refused")
        return ", ".join(parts)

    def _counts(self) -> str:
        return " and ".join(counted(self.published[kind], kind) for kind in ("quote", "trade"))
