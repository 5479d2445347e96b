"""`relay listen`: what a subscriber gets, as a live table on a terminal and as JSON lines into a pipe.

Values go to standard output; what happens to the connection goes to standard error, so that `relay listen … |
jq .data` sees prices and nothing else. What a publisher sent is shown on a terminal with its control characters
replaced: a price must not be able to move the cursor or retitle the window.
"""

import asyncio
import math
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relay.cli.publish import run_to_exit
from relay.client import (
    ClientError,
    Closed,
    Event,
    Problem,
    ScopedToken,
    Snapshot,
    Status,
    Subscribed,
    Subscriber,
    Update,
    Welcome,
    fetch_token,
)
from relay.core.channels import check_pattern
from relay.core.errors import ConfigurationError

REDRAW_S = 0.25
RATE_WINDOW_S = 3.0
TOKEN_CHANNELS = 32
"""Channels that one token may name; whoever wants more asks for all that the session may see."""


def listen(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The endpoint, like ws://127.0.0.1:8001/ws/prices.")
    ],
    channels: Annotated[
        list[str], typer.Argument(metavar="CHANNEL", help="Channels, or patterns like prices.>")
    ],
    *,
    token: Annotated[str, typer.Option("--token", help="A scoped token; it opens one connection.")] = "",
    session_token: Annotated[
        str,
        typer.Option(
            "--session-token",
            envvar="RELAY_SESSION_TOKEN",
            help="The session's access token: takes a scoped token from --issuer for every attempt.",
        ),
    ] = "",
    issuer: Annotated[
        str, typer.Option("--issuer", help="The relay's public address.")
    ] = "http://127.0.0.1:8000",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="The endpoint's name for the issuer, if not its default.")
    ] = "",
    origin: Annotated[
        str, typer.Option("--origin", help="The browser origin that the token is bound to.")
    ] = "",
    interval_ms: Annotated[
        int, typer.Option("--interval-ms", help="At most one value a channel in this time.")
    ] = 0,
    count: Annotated[
        int, typer.Option("--count", min=0, help="Stop after so many values; 0 never stops.")
    ] = 0,
) -> None:
    """Show the values of channels as they come."""
    if bool(token) == bool(session_token):
        raise ConfigurationError("Give either --token or --session-token (or RELAY_SESSION_TOKEN).")
    asked = channels if len(channels) <= TOKEN_CHANNELS else None

    async def fresh_token() -> ScopedToken:
        return await fetch_token(
            issuer, session_token, endpoint=endpoint or None, channels=asked, origin=origin or None
        )

    async def main() -> int:
        source = token.strip() or fresh_token
        async with Subscriber(url, source, origin=origin or None) as subscriber:
            await subscriber.subscribe([check_pattern(channel) for channel in channels], interval_ms)
            console = Console()
            view: Lines | Board = Board(url, console) if console.is_terminal else Lines()
            return await _listen(subscriber, view, wanted=set(channels), count=count)

    run_to_exit(main())


async def _listen(subscriber: Subscriber, view: "Lines | Board", *, wanted: set[str], count: int) -> int:
    """Show events until there are enough, or none will come."""
    shown = 0
    welcomed = False
    with view:
        async for event in subscriber:
            if isinstance(event, Welcome):
                welcomed = True
            elif isinstance(event, Closed) and not welcomed:
                # a typing mistake in the address must not look like a quiet market
                raise ClientError(f"There is no connection: {event.reason}")
            elif isinstance(event, Subscribed):
                wanted -= {item.channel for item in event.rejected}
            note = _note(event)
            if note:
                view.say(note)
            view.show(event)
            if not wanted:
                return 1
            shown += isinstance(event, Snapshot | Update)
            if count and shown >= count:
                return 0
    return 0


def _note(event: Event) -> str:
    """Return what a person should read about `event`, or "" if nothing."""
    match event:
        case Closed():
            return f"disconnected: {event.code} {event.reason}; trying again in {event.retry_in_s:.1f} s"
        case Problem():
            return f"{event.code}: {event.message}"
        case Subscribed():
            return "\n".join(
                f"{item.channel} was refused: {item.message or item.code}" for item in event.rejected
            )
        case _:
            return ""


def printable(text: str) -> str:
    """Return `text` with everything replaced that a terminal might obey."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


class Lines:
    """One JSON line for each value or status, written at once: the next may be an hour away."""

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return

    def say(self, note: str) -> None:
        """Tell the person at the other end of standard error."""
        for line in note.splitlines():
            sys.stderr.write(f"{printable(line)}\n")

    def show(self, event: Event) -> None:
        """Write `event` if it carries a value or a status; `data` is the publisher's own JSON, byte for byte."""
        if isinstance(event, Snapshot | Update | Status):
            sys.stdout.buffer.write(msgspec.json.encode(event).replace(b"\n", b" ") + b"\n")
            sys.stdout.buffer.flush()


@dataclass(slots=True)
class _Row:
    value: str = ""
    seq: int = 0
    ts: int = 0
    state: str = ""
    rate: float = 0.0
    at: float = 0.0

    def count(self, now: float) -> None:
        """Add one to the rate, an average that forgets within some seconds and needs no history."""
        self.rate = self.rate_at(now) + 1 / RATE_WINDOW_S
        self.at = now

    def rate_at(self, now: float) -> float:
        return self.rate * math.exp((self.at - now) / RATE_WINDOW_S)


class Board:
    """The live table. Ages are on the server's clock, as far as the fastest frame so far tells it."""

    def __init__(self, url: str, console: Console) -> None:
        self._url = url
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._state = "connecting"
        self._server_lead = -math.inf
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._live.start()
        self._task = asyncio.get_running_loop().create_task(self._redraw())

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
        self._live.update(self.table(time.monotonic()), refresh=True)
        self._live.stop()

    def say(self, note: str) -> None:
        """Print above the table."""
        self._live.console.print(Text(printable(note.replace("\n", "; "))))

    def show(self, event: Event) -> None:
        """Take `event` into the table; drawing it waits for the next beat."""
        now = time.monotonic()
        match event:
            case Snapshot() | Update():
                row = self._rows.setdefault(event.channel, _Row())
                row.value, row.seq, row.ts, row.state = (
                    _shorten(event.channel, bytes(event.raw)),
                    event.seq,
                    event.ts,
                    "live",
                )
                row.count(now)
                self._server_lead = max(self._server_lead, event.ts / 1000 - now)
            case Status():
                self._rows.setdefault(event.channel, _Row()).state = event.state
            case Welcome():
                self._state = "connected"
                self._server_lead = max(self._server_lead, event.ts / 1000 - now)
            case Closed():
                self._state = f"disconnected ({event.code} {event.reason})"
                for row in self._rows.values():
                    row.state = "stale"
            case _:
                return

    def table(self, now: float) -> Table:
        """Return the table as it stands at `now`, no higher than the terminal."""
        table = Table(
            title=Text(printable(f"{self._url} · {self._state}")),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            expand=True,
        )
        table.add_column("channel", no_wrap=True)
        table.add_column("value", no_wrap=True, overflow="ellipsis", ratio=1)
        for name in ("seq", "age", "rate"):
            table.add_column(name, justify="right", no_wrap=True, min_width=8)
        room = max(self._console.size.height - 6, 1)
        rows = sorted(self._rows.items())
        for channel, row in rows[:room]:
            age = max(now + self._server_lead - row.ts / 1000, 0.0) if row.ts else math.nan
            table.add_row(
                Text(channel),
                Text(row.value),
                f"{row.seq:,}",
                "-" if math.isnan(age) else f"{age:.1f} s",
                f"{row.rate_at(now):.1f}/s",
                style="dim" if row.state == "stale" else None,
            )
        if len(rows) > room:
            table.caption = f"and {len(rows) - room} more; a higher terminal shows them"
        return table

    async def _redraw(self) -> None:
        while True:
            self._live.update(self.table(time.monotonic()), refresh=True)
            await asyncio.sleep(REDRAW_S)


def _shorten(channel: str, raw: bytes) -> str:
    """Return a value as one short line: a quote's members without the punctuation, anything else as it came."""
    try:
        value = msgspec.json.decode(raw, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return printable(raw[:400].decode(errors="replace")[:200])
    # the symbol stands in the channel already
    words = (f"{name} {item}" for name, item in value.items() if not channel.endswith(f".{item}"))
    return printable("  ".join(words)[:200])
