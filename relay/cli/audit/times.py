"""Times as options take them and as tables show them: in UTC, or with `--local` in the zone of this machine."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from relay.core.errors import ConfigurationError

_AGO = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

SinceOption = Annotated[
    str,
    typer.Option("--since", help="Only records from this time on: 2h, 30m or 7d ago, or 2026-11-26T09:00."),
]
UntilOption = Annotated[str, typer.Option("--until", help="Only records up to this time.")]
LocalOption = Annotated[
    bool,
    typer.Option(
        "--local/--utc",
        help="The zone of times without one, and of times in tables: this machine's, or UTC. JSON and CSV have UTC.",
    ),
]


def parse_time(text: str, *, option: str, local: bool = False, now: datetime | None = None) -> datetime:
    """Return the time that `text` means: so long ago, or a date and time. If it names no zone: in UTC, or local time.

    Times that are compared with each other are "ago" from the same `now`.

    Raises:
        ConfigurationError: if it is neither.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return (now or datetime.now(UTC)) - _length(ago)
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo or local else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):  # OverflowError: a time before the year 1
        raise ConfigurationError(
            f"{option}: {text[:40]!r} is no time. Give 2h, 30m or 7d for so long ago, or 2026-11-26T09:00."
        ) from None


def parse_period(text: str, *, option: str) -> timedelta:
    """Return the length of time that `text` means, as 30d.

    Raises:
        ConfigurationError: if it is none.
    """
    found = _AGO.fullmatch(text)
    if found is None or not _length(found):
        raise ConfigurationError(f"{option}: {text[:40]!r} is no length of time. Give 30d, 12h or 90m.")
    return _length(found)


def _length(text: re.Match[str]) -> timedelta:
    return timedelta(**{_UNITS[text[2]]: int(text[1])})


def shown(at: str, *, local: bool) -> str:
    """Return a record's time as tables show it. A text that is no time stays as it is."""
    if not local:
        return at
    try:
        return datetime.fromisoformat(at).astimezone().isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        return at
