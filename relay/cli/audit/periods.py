"""Periods as arguments name them: `FROM..TO`, of which the moment TO is no part."""

from dataclasses import dataclass
from datetime import UTC, datetime

from relay.audit.query.records import iso
from relay.cli.audit.times import parse_time
from relay.core.errors import ConfigurationError

_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The time from `begin` on and before `end`."""

    begin: datetime
    end: datetime

    @property
    def bounds(self) -> tuple[str, str]:
        """Both times in the form of records."""
        return iso(self.begin), iso(self.end)


def parse_periods(
    first: str,
    second: str,
    *,
    local: bool = False,
    span: tuple[datetime | None, datetime | None] = (None, None),
) -> tuple[Period, Period]:
    """Return the periods A and B, as far as they are in a span of time. They share no moment, and have no order.

    Raises:
        ConfigurationError: if one is no period, or nothing is left of it, or they overlap.
    """
    now = datetime.now(UTC)
    a, b = (
        _within(_parsed(text, name=name, local=local, now=now), span, name=name, text=text)
        for name, text in (("A", first), ("B", second))
    )
    begin, end = max(a.begin, b.begin), min(a.end, b.end)
    if begin < end:
        raise ConfigurationError(
            f"A ({first}) and B ({second}) overlap, from {iso(begin)} to {iso(end)}. Let one begin where the other "
            "ends."
        )
    return a, b


def _within(period: Period, span: tuple[datetime | None, datetime | None], *, name: str, text: str) -> Period:
    since, until = span
    begin = period.begin if since is None else max(period.begin, since)
    end = period.end if until is None else min(period.end, until)
    if begin >= end:
        raise ConfigurationError(f"{name}: --since and --until leave nothing of {text[:80]!r}.")
    return Period(begin=begin, end=end)


def _parsed(text: str, *, name: str, local: bool, now: datetime) -> Period:
    begin, dots, end = text.partition("..")
    if not dots or not (begin or end) or ".." in end:
        raise ConfigurationError(
            f"{name}: {text[:80]!r} is no period. Give FROM..TO, as 2026-11-01..2026-11-08 or 14d..7d. Without FROM it "
            "begins with the log, without TO it ends now."
        )
    period = Period(
        begin=parse_time(begin, option=name, local=local, now=now) if begin else _EARLIEST,
        end=parse_time(end, option=name, local=local, now=now) if end else now,
    )
    if period.begin >= period.end:
        raise ConfigurationError(
            f"{name}: {text[:80]!r} begins at {iso(period.begin)} and ends at {iso(period.end)}. A period has to end "
            "after it begins."
        )
    return period
