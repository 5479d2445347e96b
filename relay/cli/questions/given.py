"""What all questions have in common: which files, which span of time, and how an answer is shown."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from relay.audit.files import log_files
from relay.audit.query.records import Reading
from relay.cli.serve import config_path
from relay.cli.views import printable
from relay.core.errors import ConfigurationError, RelayError
from relay.settings.load import load
from relay.settings.sections import Audit

_AGO = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_REPORT_EVERY = 5000
"""Lines between two steps of the progress bar."""

FilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A file of the log; give it once for each, in any order. Default: all files that the settings name.",
    ),
]
SinceOption = Annotated[
    str, typer.Option("--since", help="Only from then on: 2h, 30m, 7d, or a time like 2026-11-26T09:00.")
]
UntilOption = Annotated[str, typer.Option("--until", help="Only up to then.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def parse_time(text: str, *, option: str) -> datetime:
    """Return a moment that a person named: so long ago, or a date and time, in UTC if it does not say.

    Raises:
        ConfigurationError: if it is neither.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # what lies before the year 1 is no time either
        raise ConfigurationError(
            f"{option}: {text[:40]!r} is no time. Give 2h, 30m or 7d for so long ago, or 2026-11-26T09:00."
        ) from None


class Log:
    """The files of a log and the span of them that is asked about."""

    def __init__(
        self, files: Sequence[Path] | None, *, config: Path | None = None, since: str = "", until: str = ""
    ) -> None:
        self._files = _in_order(files) if files else log_files(_configured(config))
        self.reading = Reading(
            since=parse_time(since, option="--since") if since else None,
            until=parse_time(until, option="--until") if until else None,
        )

    @property
    def newest(self) -> Path:
        """The file that is being written."""
        return self._files[-1]

    def lines(self) -> Iterator[bytes]:
        """Read all lines, oldest first, with a progress bar on a terminal."""
        try:
            if sys.stderr.isatty():
                yield from self._watched()
                return
            for path in self._files:
                with path.open("rb") as file:
                    yield from file
        except OSError as error:
            raise RelayError(f"{printable(str(error.filename))} can't be read: {error.strerror}.") from None

    def tell_missing(self) -> None:
        """Say on standard error what an answer may lack: lines that are no records, and events that are not there."""
        if self.reading.lost:
            sys.stderr.write(
                f"{self.reading.lost} events of this time could not be recorded; see relay audit stats.\n"
            )
        if self.reading.unreadable:
            sys.stderr.write(
                f"{self.reading.unreadable} lines are no records and were passed over; see relay audit verify.\n"
            )

    def _watched(self) -> Iterator[bytes]:
        total = sum(path.stat().st_size for path in self._files)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Reading", total=total)
            done = number = 0
            for path in self._files:
                with path.open("rb") as file:
                    for line in file:
                        number += 1
                        done += len(line)
                        if not number % _REPORT_EVERY:
                            progress.update(task, completed=done)
                        yield line


def _configured(config: Path | None) -> Path:
    """Return where the settings keep the log; without any it is where it is by default.

    Raises:
        ConfigurationError: if there are settings with mistakes in them.
    """
    path = config_path(config)
    if path is not None:
        return load(path).audit.path
    return Path(os.environ.get("RELAY_AUDIT__PATH", Audit().path))


def _in_order(files: Sequence[Path]) -> list[Path]:
    """Return files in the order of their first records' times: they may be several relays', which number apart.

    One that can't be read is told of when it is.
    """

    def begins(path: Path) -> str:
        with suppress(OSError), path.open("rb") as file:
            return next((record.at for record in Reading().records([file.readline()])), "")
        return ""

    return sorted(files, key=begins)


def show(
    rows: Sequence[dict[str, Any]],
    *,
    as_json: bool,
    columns: Sequence[str],
    nothing: str,
    right: Sequence[str] = (),
) -> None:
    """Print rows as JSON, or as a table of these columns with everything escaped that a terminal might obey."""
    if as_json:
        sys.stdout.write(json.dumps(list(rows)) + "\n")
        return
    console = Console()
    if not rows:
        console.print(Text(nothing))  # it may quote what was asked, brackets and all
        return
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for name in columns:
        table.add_column(
            name.replace("_", " "), justify="right" if name in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(printable(_cell(row[name]))) for name in columns))
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
