"""Times as options take them and as tables show them: in UTC, or with `--local` in the zone of this machine."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from relay.audit.query.records import iso
from relay.core.errors import ConfigurationError

_AGO = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

SinceOption = Annotated[
    str,
    typer.Option("--since", help="Only records from this time on: 2h, 30m or 7d ago, or 2026-11-26T09:00."),
]
UntilOption = Annotated[
    str, typer.Option("--until", help="Only records up to this time. A date alone is its first moment.")
]
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


def parse_span(since: str, until: str, *, local: bool = False) -> tuple[datetime | None, datetime | None]:
    """Return the times that --since and --until mean. None: there is no bound.

    Raises:
        ConfigurationError: if one is no time, or the span ends before it begins.
    """
    now = datetime.now(UTC)
    begin = parse_time(since, option="--since", local=local, now=now) if since else None
    end = parse_time(until, option="--until", local=local, now=now) if until else None
    if begin is not None and end is not None and begin > end:
        raise ConfigurationError(
            f"--since is {_text(begin, local=local)}, later than --until, {_text(end, local=local)}."
        )
    return begin, end


def parse_moment_or_span(at: str, since: str, until: str, *, local: bool) -> tuple[datetime, datetime | None]:
    """Return the moment of --at, else now, and None; or the end and the begin of the span of --since and --until.

    Raises:
        ConfigurationError: if both are given, or one is no time.
    """
    if at and (since or until):
        raise ConfigurationError("--at is a moment, --since and --until are a span: give one of the two.")
    if since or until:
        begin, end = parse_span(since, until, local=local)
        return end or datetime.now(UTC), begin or datetime.min.replace(tzinfo=UTC)
    return parse_time(at or "0s", option="--at", local=local), None


def parse_period(text: str, *, option: str) -> timedelta:
    """Return the length of time that `text` means, as 30d.

    Raises:
        ConfigurationError: if it is none.
    """
    found = _AGO.fullmatch(text)
    if found is None or not _length(found):
        raise ConfigurationError(f"{option}: {text[:40]!r} is no length of time. Give 30d, 12h or 90m.")
    return _length(found)


def _text(at: datetime, *, local: bool) -> str:
    return shown(at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), local=local)


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


def is_future(at: str) -> bool:
    """Tell whether a record's time is later than now."""
    return at > iso(datetime.now(UTC))


def ended(at: str, *, killed: bool, local: bool) -> str:
    """Return the end of a connection as tables show it. "" is an open one."""
    if killed:
        return f"its relay died before {shown(at, local=local)}"
    return shown(at, local=local) if at else "open when the log ends"
