"""JSON lines (NDJSON) from files or standard input, published in order, with a progress bar.

The next lines are read only after the last ones were published. A fast producer therefore waits for its pipe, and does
not fill the memory of this process. Each line that fails is named on standard error, and the others are published.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from relay.cli.output import printable
from relay.client import BatchError, Message, Publisher, PublishError, Result
from relay.core.errors import ConfigurationError, RelayError
from relay.core.form_errors import in_words
from relay.core.publications import MAX_PUBLICATION_BYTES

CHUNK_BYTES = 65_536
"""The size of a Linux pipe: one read gets all that is ready."""


class Lines:
    """Cuts bytes into numbered lines. A line that is too long is None, and costs no memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._too_long = False
        self._number = 0

    def feed(self, chunk: bytes) -> list[tuple[int, bytes | None]]:
        """Return the lines that `chunk` completes. Blank lines are counted and left out. b"" ends the last line."""
        *whole, rest = (self._rest + chunk).split(b"\n")
        if not chunk and (rest or self._too_long):
            whole, rest = [rest], b""
        lines: list[tuple[int, bytes | None]] = []
        for line in whole:
            self._number += 1
            if self._too_long or len(line) > self._max_bytes:
                lines.append((self._number, None))
            elif line.strip():
                lines.append((self._number, line.strip()))
            self._too_long = False
        if self._too_long or len(rest) > self._max_bytes:
            self._too_long, rest = True, b""
        self._rest = rest
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source of lines: a file descriptor, its name for error texts, and its size in bytes if it is known."""

    descriptor: int
    name: str
    size: int | None

    def place(self, number: int) -> str:
        """Return the name of a line for error texts."""
        return f"{self.name}, line {number}" if self.name else f"line {number}"


@contextmanager
def opened(files: Sequence[Path]) -> Iterator[list[Source]]:
    """Open all files, or standard input if there are none. The file `-` is standard input as well.

    Raises:
        ConfigurationError: if a file can't be read. Nothing has been published then.
    """
    sources: list[Source] = []
    try:
        for path in files or [Path("-")]:
            if str(path) == "-":
                sources.append(Source(descriptor=os.dup(sys.stdin.fileno()), name="", size=None))
                continue
            try:
                descriptor = os.open(path, os.O_RDONLY)
                sources.append(
                    Source(descriptor=descriptor, name=path.name, size=os.fstat(descriptor).st_size or None)
                )
                os.read(descriptor, 0)  # a folder can be opened, but not read
            except OSError as error:
                raise ConfigurationError(f"{path} can't be read: {error.strerror}.") from None
        yield sources
    finally:
        for source in sources:
            os.close(source.descriptor)


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    channel: str
    data: msgspec.Raw
    version: int | None = None
    version_epoch: int | None = None
    idempotency_key: str | None = None
    source_ts: int | None = None


def _message(line: bytes | None, channel: str) -> Message:
    if line is None:
        raise PublishError("too_large", f"it is longer than {MAX_PUBLICATION_BYTES} bytes.")
    if channel:
        return Message(channel=channel, data=line)
    try:
        envelope = msgspec.json.decode(line, type=_Envelope)
    except msgspec.ValidationError as error:
        raise PublishError("invalid_request", f"{in_words(error)}.") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PublishError("invalid_request", f'it is not {{"channel": …, "data": …}}: {error}.') from None
    return Message(
        channel=envelope.channel,
        data=bytes(envelope.data),
        version=envelope.version,
        version_epoch=envelope.version_epoch,
        idempotency_key=envelope.idempotency_key,
        source_ts=envelope.source_ts,
    )


async def publish_lines(publisher: Publisher, sources: Sequence[Source], channel: str) -> int:
    """Publish all lines, and return how many failed. With `channel` "", each line names its channel.

    Raises:
        RelayError: if publishing stopped; the text says which lines were not published.
    """
    if any(os.isatty(source.descriptor) for source in sources):
        sys.stderr.write("Reading JSON lines from the keyboard. Press Ctrl-D to end.\n")
    counts = _Counts(sources)
    try:
        with counts:
            async with publisher:
                for source in sources:
                    lines = Lines(MAX_PUBLICATION_BYTES)
                    async for chunk in _chunks(source.descriptor):
                        await _publish(publisher, source, lines.feed(chunk), channel, counts)
                        counts.read(len(chunk))
    finally:
        print(counts.summary())
    return counts.failed


async def _publish(
    publisher: Publisher,
    source: Source,
    lines: Sequence[tuple[int, bytes | None]],
    channel: str,
    counts: "_Counts",
) -> None:
    messages: list[Message] = []
    numbers: list[int] = []
    for number, line in lines:
        try:
            messages.append(_message(line, channel))
        except PublishError as error:
            counts.fail(source.place(number), error.message)
        else:
            numbers.append(number)
    try:
        results = await publisher.publish_many(messages)
    except BatchError as error:
        counts.add(source, numbers, error.done)
        lost = numbers[len(error.done) :]
        counts.failed += len(lost)
        where = f" of {printable(source.name)}" if source.name else ""
        raise RelayError(
            f"Lines {lost[0]} to {lost[-1]}{where} were not published, and nothing after them: {error.message}"
        ) from None
    counts.add(source, numbers, results)


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    """Yield the bytes that are ready, and b"" at the end. No thread is used: one that waits can't be ended."""
    while True:
        await _readable(descriptor)
        chunk = os.read(descriptor, CHUNK_BYTES)
        yield chunk
        if not chunk:
            return


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # epoll refuses regular files, which are always ready
        return
    try:
        await ready.wait()
    finally:
        # otherwise it is called in every cycle of the loop while the lines are published
        loop.remove_reader(descriptor)


class _Counts:
    """Counts published and failed lines. On a terminal it shows a bar if the sizes of all files are known."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.published = 0
        self.failed = 0
        self._began = time.monotonic()
        sizes = [source.size for source in sources if source.size is not None]
        is_known = len(sizes) == len(sources)
        console = Console(stderr=True)
        columns = (BarColumn(), TaskProgressColumn()) if is_known else (SpinnerColumn(),)
        self._progress = Progress(
            *columns,
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal or any(os.isatty(source.descriptor) for source in sources),
        )
        self._task = self._progress.add_task(
            "publish", total=sum(sizes) if is_known else None, text="waiting for lines"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def read(self, length: int) -> None:
        """Advance the bar by `length` bytes."""
        rate = self.published / max(time.monotonic() - self._began, 0.001)
        text = f"{self.published:,} published, {self.failed:,} failed, {rate:,.0f}/s"
        self._progress.update(self._task, advance=length, text=text)

    def add(self, source: Source, numbers: Sequence[int], results: Sequence[Result]) -> None:
        """Count the results of some lines. An interrupted batch has fewer results than lines."""
        for number, result in zip(numbers, results, strict=False):
            if isinstance(result, PublishError):
                self.fail(source.place(number), result.message)
            else:
                self.published += 1

    def fail(self, place: str, message: str) -> None:
        """Count a failed line, and print its error above the bar."""
        self.failed += 1
        line = printable(f"{place}: {message}")
        if self._progress.disable:
            sys.stderr.write(f"{line}\n")
        else:
            self._progress.console.print(line, markup=False, highlight=False)

    def summary(self) -> str:
        """Return the last line of the output."""
        seconds = time.monotonic() - self._began
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.published:,} published{failed}, in {seconds:.1f} s"
