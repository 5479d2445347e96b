"""`relay replay`: recorded market traffic, published again with its own rhythm.

Nothing is left out when publishing is slower than the recording: the replay falls behind and says how far. A
terminal gets a progress bar, a pipe a summary line every five seconds and at the end.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from relay.cli.publish import DEFAULT_URL, KeyOption, UrlOption, require_key, run_to_exit
from relay.client import BatchError, Publisher, PublishError
from relay.client.publisher import Result
from relay.core.errors import RelayError
from relay.demo.market import Quote
from relay.demo.recorded import Replay

REPORT_S = 5.0
MAX_SHOWN = 20
"""Malformed lines and refusals that are shown one by one; the others are counted."""


def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Recordings, plain or gzip.")],
    *,
    speed: Annotated[float, typer.Option("--speed", help="10 plays ten times as fast.")] = 1.0,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
    channel_prefix: Annotated[
        str, typer.Option("--channel-prefix", help="What stands before the symbol in the channel.")
    ] = "prices",
) -> None:
    """Publish recorded quotes again, each to PREFIX.SYMBOL."""
    require_key(key)
    run_to_exit(_replay(files, speed=speed, url=url, key=key, prefix=channel_prefix))


async def _replay(files: list[Path], *, speed: float, url: str, key: str, prefix: str) -> int:
    notes = _Notes()
    recording = Replay(
        files, speed=speed, prefix=prefix, on_problem=lambda problem: notes.add(f"skipped {problem}")
    )
    publisher = Publisher(url, key)
    report = _Report(recording)
    try:
        with report:
            async with publisher:
                async for batch in recording.batches():
                    report.published += await _publish(publisher, batch, notes)
                    report.tick()
    finally:
        notes.close()
        print(report.summary(refused=notes.refused))
    if not report.published:
        raise RelayError(
            "Nothing was published: there is no quote (<symbol>@bookTicker) in these files, or all were refused."
        )
    return 1 if recording.tally.malformed or notes.refused else 0


async def _publish(publisher: Publisher, batch: list[Quote], notes: "_Notes") -> int:
    """Publish one batch; returns how many quotes of it were taken."""
    try:
        results: list[Result] = await publisher.publish_many(batch)
    except BatchError as error:
        raise RelayError(f"The replay stopped at a batch of {len(batch)} quotes: {error.message}") from None
    refused = [
        (channel, result)
        for (channel, _), result in zip(batch, results, strict=True)
        if isinstance(result, PublishError)
    ]
    for channel, result in refused:
        notes.refuse(f"{channel} was refused: {result.message}")
    return len(results) - len(refused)


class _Notes:
    """What went wrong, said once each and not for ever."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._unsaid = 0
        self.refused = 0

    def refuse(self, text: str) -> None:
        self.refused += 1
        if text not in self._seen:
            self.add(text)

    def add(self, text: str) -> None:
        if len(self._seen) >= MAX_SHOWN:
            self._unsaid += 1
            return
        self._seen.add(text)
        sys.stderr.write(f"{text}\n")

    def close(self) -> None:
        if self._unsaid:
            sys.stderr.write(f"and {self._unsaid:,} more like these\n")


class _Report:
    """How far the replay is: a bar on a terminal, else a line now and then."""

    def __init__(self, recording: Replay, clock: Callable[[], float] = time.monotonic) -> None:
        self._recording = recording
        self._clock = clock
        self._began = self._last = clock()
        self._last_published = 0
        self._most_behind_s = 0.0
        self.published = 0
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

    def tick(self) -> None:
        self._most_behind_s = max(self._most_behind_s, self._recording.lag_s)
        now = self._clock()
        every = 0.5 if self._on_terminal else REPORT_S
        if now - self._last < every:
            return
        rate = (self.published - self._last_published) / (now - self._last)
        self._last, self._last_published = now, self.published
        text = f"{self.published:,} quotes, {rate:,.0f}/s, {self._recording.lag_s:.2f} s behind"
        self._bar.update(self._task, completed=self._recording.share_done, text=text)
        if not self._on_terminal:
            print(f"{self._recording.share_done:.0%}, {text}", flush=True)

    def summary(self, *, refused: int) -> str:
        tally = self._recording.tally
        seconds = self._clock() - self._began
        parts = [f"{_many(self.published, 'quote')} published in {seconds:.1f} s"]
        if self._most_behind_s >= 0.1:
            parts.append(f"at most {self._most_behind_s:.1f} s behind")
        parts += [
            f"{_many(count, 'line')} of {kind} skipped" for kind, count in sorted(tally.skipped.items())
        ]
        if tally.malformed:
            parts.append(_many(tally.malformed, "malformed line"))
        if refused:
            parts.append(f"{refused:,} refused")
        return ", ".join(parts)


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
