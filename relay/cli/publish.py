"""`relay publish`: one value from the command line, or a stream of JSON lines from standard input.

Standard input is read only when the last lines were published, so a fast producer waits in its pipe and not in
this process's memory. Each line that fails is named on standard error, whatever happens to the others.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from relay.client import BatchError, Message, Publisher, PublishError
from relay.core.channels import check_channel
from relay.core.errors import ConfigurationError, MalformedError, RelayError
from relay.core.publications import MAX_PUBLICATION_BYTES

DEFAULT_URL = "http://127.0.0.1:8002"
CHUNK_BYTES = 65_536
"""What a Linux pipe holds: one read gets what one writer had ready."""

ONE_VALUE_ATTEMPTS = 3
"""A person waits for the answer: a wrong address is told within two seconds."""

UrlOption = Annotated[str, typer.Option("--url", help="The relay's internal address.")]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="RELAY_PUBLISH_KEY",
        metavar="NAME.SECRET",
        help="The publisher key. The environment variable keeps it out of the process list.",
    ),
]


def publish(
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="An exact channel; leave it out with --envelope.")
    ] = "",
    value: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="The value. Without it, each line of standard input is one."),
    ] = None,
    *,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
    envelope: Annotated[
        bool, typer.Option("--envelope", help='Lines are {"channel": …, "data": …} and name their channel.')
    ] = False,
) -> None:
    """Publish one JSON value, or JSON lines from standard input."""
    if envelope == bool(channel):
        raise ConfigurationError("Name a channel, or give --envelope and lines that name theirs.")
    require_key(key)
    if value is not None:
        run_to_exit(_publish_one(url, key, channel, value))
    run_to_exit(_publish_lines(url, key, channel))


def require_key(key: str) -> None:
    """Refuse to go on without a publisher key.

    Raises:
        ConfigurationError: if there is none.
    """
    if not key:
        raise ConfigurationError(
            "A publisher key is needed, as --key or in RELAY_PUBLISH_KEY; `relay keys publisher NAME` makes one."
        )


def run_to_exit(main: Coroutine[Any, Any, int]) -> None:
    """Run a command and leave with its exit code: one sentence for what went wrong, and quiet endings.

    Exit codes: 2 for what the caller must mend, 1 for other errors; 130 for Ctrl-C and 141 for a reader of our
    output that has left, which is what shells show for those two.
    """
    try:
        code = asyncio.run(main)
    except (ConfigurationError, MalformedError) as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    except RelayError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # the interpreter's last flush would complain about the closed pipe once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    raise typer.Exit(code)


async def _publish_one(url: str, key: str, channel: str, value: str) -> int:
    async with Publisher(url, key, attempts=ONE_VALUE_ATTEMPTS) as publisher:
        position = await publisher.publish(channel, value)
    print(f"{position.channel} seq {position.seq} epoch {position.epoch}")
    return 0


# Many lines


class Lines:
    """Cuts what is read into numbered lines. A line that is too long is None, and costs no memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._too_long = False
        self._number = 0

    def feed(self, chunk: bytes) -> list[tuple[int, bytes | None]]:
        """Return the lines that `chunk` completes; blank ones are counted and left out. b"" ends the last."""
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


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    channel: str
    data: msgspec.Raw
    source_ts: int | None = None


def _message(line: bytes | None, channel: str) -> Message:
    if line is None:
        raise PublishError("too_large", f"it is longer than {MAX_PUBLICATION_BYTES} bytes.")
    if channel:
        return Message(channel=channel, data=line)
    try:
        envelope = msgspec.json.decode(line, type=_Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PublishError("invalid_request", f'it is not {{"channel": …, "data": …}}: {error}.') from None
    return Message(channel=envelope.channel, data=bytes(envelope.data), source_ts=envelope.source_ts)


async def _publish_lines(url: str, key: str, channel: str) -> int:
    if channel:
        check_channel(channel)
    if sys.stdin.isatty():
        sys.stderr.write("Reading JSON lines from the keyboard; Ctrl-D ends.\n")
    counts = _Counts()
    lines = Lines(MAX_PUBLICATION_BYTES)
    try:
        with counts:
            async with Publisher(url, key) as publisher:
                async for chunk in _standard_input():
                    await _publish_some(publisher, lines.feed(chunk), channel, counts)
    finally:
        print(counts.summary())
    return 1 if counts.failed else 0


async def _publish_some(
    publisher: Publisher, lines: list[tuple[int, bytes | None]], channel: str, counts: "_Counts"
) -> None:
    messages: list[Message] = []
    numbers: list[int] = []
    for number, line in lines:
        try:
            messages.append(_message(line, channel))
        except PublishError as error:
            counts.fail(number, error.message)
        else:
            numbers.append(number)
    try:
        results = await publisher.publish_many(messages)
    except BatchError as error:
        counts.take(numbers, error.done)
        lost = numbers[len(error.done) :]
        counts.failed += len(lost)
        raise RelayError(
            f"Lines {lost[0]} to {lost[-1]} were not published, and nothing after them: {error.message}"
        ) from None
    counts.take(numbers, results)


async def _standard_input() -> AsyncIterator[bytes]:
    """Give what there is to read, and b"" once at the end. No thread: one that waits could not be ended."""
    source = sys.stdin.fileno()
    while True:
        await _readable(source)
        chunk = os.read(source, CHUNK_BYTES)
        yield chunk
        if not chunk:
            return


async def _readable(source: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(source, ready.set)
    except PermissionError:  # an ordinary file, which is always ready (epoll refuses it)
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(source)  # it would fire at every turn of the loop while the lines are published


class _Counts:
    """How many lines were published and how many failed, with a progress line on a terminal."""

    def __init__(self) -> None:
        self.published = 0
        self.failed = 0
        self._began = time.monotonic()
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal or sys.stdin.isatty(),
        )
        self._task = self._progress.add_task("publish", total=None, text="waiting for lines")

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def take(self, numbers: list[int], results: list[Any]) -> None:
        for number, result in zip(numbers, results, strict=False):  # a batch that broke off has fewer results
            if isinstance(result, PublishError):
                self.fail(number, result.message)
            else:
                self.published += 1
        rate = self.published / max(time.monotonic() - self._began, 0.001)
        text = f"{self.published:,} published, {self.failed:,} failed, {rate:,.0f}/s"
        self._progress.update(self._task, text=text)

    def fail(self, number: int, message: str) -> None:
        self.failed += 1
        sys.stderr.write(f"line {number}: {message}\n")

    def summary(self) -> str:
        seconds = time.monotonic() - self._began
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.published:,} published{failed}, in {seconds:.1f} s"
