"""The output of `relay listen`: a live table on a terminal, JSON lines into a pipe.

On a terminal, characters of a publisher that a terminal might obey are replaced or escaped. Otherwise a price could
move the cursor or change the window's title.
"""

import asyncio
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relay.cli.output import printable
from relay.client import Closed, Event, Gap, Snapshot, Status, Subscribed, Update, Welcome

REDRAW_S = 0.25
RATE_WINDOW_S = 3.0


_WHITE_SPACE = bytes.maketrans(b"\r\n\t", b"   ")


def _escaped(line: str) -> str:
    """Return the same JSON with each character escaped that a terminal might obey. They occur only in strings."""
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1] for character in line
    )


class Lines:
    """Writes one JSON line for each value, status or gap, immediately, because the next may come an hour later.

    `data` is the publisher's JSON, byte for byte. With `escape`, characters that a terminal might obey are escaped.
    """

    def __init__(self, *, escape: bool) -> None:
        self._escape = escape

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return

    def say(self, note: str) -> None:
        """Print `note` on standard error."""
        for line in note.splitlines():
            sys.stderr.write(f"{printable(line)}\n")

    def show(self, event: Event) -> None:
        """Write `event` if it is about a channel."""
        if not isinstance(event, Snapshot | Update | Status | Gap):
            return
        # a line break in JSON is white space between tokens; inside a string it is always escaped
        line = msgspec.json.encode(event).translate(_WHITE_SPACE)
        if self._escape:
            line = _escaped(line.decode()).encode()
        sys.stdout.buffer.write(line + b"\n")
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
        """Count one value. The rate is an exponentially decaying average, which needs no history."""
        self.rate = self.rate_at(now) + 1 / RATE_WINDOW_S
        self.at = now

    def rate_at(self, now: float) -> float:
        return self.rate * math.exp((self.at - now) / RATE_WINDOW_S)


class Board:
    """The live table. Ages use the server's clock, which `server_ms` reads."""

    def __init__(self, url: str, console: Console, *, server_ms: Callable[[], int | None]) -> None:
        self._url = url
        self._console = console
        self._server_ms = server_ms
        self._rows: dict[str, _Row] = {}
        self._state = "connecting"
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
        """Add `event` to the table. The next redraw shows it."""
        now = time.monotonic()
        match event:
            case Snapshot() | Update():
                row = self._rows.setdefault(event.channel, _Row())
                row.value, row.seq, row.ts = _shorten(event.channel, bytes(event.raw)), event.seq, event.ts
                row.count(now)
            case Status():
                self._rows.setdefault(event.channel, _Row()).state = event.state
            case Subscribed():
                for item in event.channels:
                    if item.state is not None:
                        self._rows.setdefault(item.channel, _Row(state=item.state))
            case Gap():
                self.say(f"{event.channel}: messages after {event.seq:,} are lost")
            case Welcome():
                self._state = "connected"
            case Closed():
                self._state = f"disconnected ({event.code} {event.reason})"
            case _:
                return

    def table(self, now: float) -> Table:
        """Return the table at the time `now`, no higher than the terminal."""
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
        server_ms = self._server_ms()
        for channel, row in rows[:room]:
            age = math.nan if server_ms is None or not row.ts else max((server_ms - row.ts) / 1000, 0.0)
            table.add_row(
                Text(channel),
                Text(row.value),
                f"{row.seq:,}",
                "-" if math.isnan(age) else f"{age:.1f} s",
                f"{row.rate_at(now):.1f}/s",
                style="dim" if row.state == "stale" else None,
            )
        if len(rows) > room:
            table.caption = f"and {len(rows) - room} more; a taller terminal shows them"
        return table

    async def _redraw(self) -> None:
        while True:
            self._live.update(self.table(time.monotonic()), refresh=True)
            await asyncio.sleep(REDRAW_S)


def _shorten(channel: str, raw: bytes) -> str:
    """Return a value as one short line: a quote's members without punctuation, other values unchanged."""
    try:
        value = msgspec.json.decode(raw, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return printable(raw[:400].decode(errors="replace")[:200])
    # the channel already has the symbol
    words = (f"{name} {item}" for name, item in value.items() if not channel.endswith(f".{item}"))
    return printable("  ".join(words)[:200])
