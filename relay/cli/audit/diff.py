"""`relay audit diff`: what was had and used in one period and not in another."""

import csv
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from relay.audit.query.records import iso
from relay.cli.audit.export import safe_cell
from relay.cli.audit.input import FilesOption, Log, reported
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.audit.periods import Period, parse_periods
from relay.cli.audit.times import LocalOption, parse_span
from relay.cli.options import ConfigOption, JsonOption
from relay.core.errors import ConfigurationError

if TYPE_CHECKING:
    from relay.audit.index.differences import Unknown

_COLUMNS = ("whose", "only_in", "what", "endpoint", "channel", "reason", "count")
_SUMMARY = timedelta(minutes=1, seconds=1)
"""A summary of publications is written so long after the minute that it is about began."""
_LATEST = datetime.max.replace(tzinfo=UTC) - _SUMMARY


def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A period FROM..TO, as 14d..7d. TO is no part of it.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one, as 7d.. or 2026-11-01..2026-11-08.")],
    *,
    by: Annotated[
        Literal["role", "user", "publisher"], typer.Option("--by", help="Whose grants and uses are compared.")
    ] = "role",
    since: Annotated[
        str, typer.Option("--since", help="Only what is from this time on, of both periods: 30d or a time.")
    ] = "",
    until: Annotated[
        str, typer.Option("--until", help="Only what is before this time, of both periods.")
    ] = "",
    local: LocalOption = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV.")] = False,
    file: FilesOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what a role, user or publisher had and used in one period and not in another."""
    if as_json and as_csv:
        raise ConfigurationError("Give one of --json and --csv.")
    periods = parse_periods(a, b, local=local, span=parse_span(since, until, local=local))
    end = min(max(period.end for period in periods), _LATEST) + _SUMMARY
    with reported(Log(file=file, config=config, until=iso(end), local=local)) as log:
        index = log.index
        from relay.audit.index import differences

        bounds = periods[0].bounds, periods[1].bounds
        found = differences.differences(index, *bounds, by=by)
        sys.stderr.writelines(_unknown(log, differences.unknown(index, *bounds), periods))
        if as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\r\n")
            names = [field.name for field in fields(differences.Difference)]
            writer.writerow(names)
            writer.writerows([safe_cell(getattr(one, name)) for name in names] for one in found)
            return
        rows = [fields_of(one) for one in found]
        if not as_json:
            rows = [
                row | ({} if row["channel"] or row["what"] != "published" else {"channel": "(not named)"})
                for row in rows
            ]
        nothing = f"By {by}, both periods have the same grants, uses and refusals."
        print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing=log.nothing(nothing), right=("count",))


def _unknown(log: Log, found: "Unknown", periods: tuple[Period, Period]) -> list[str]:
    """Return lines about what the log does not say of the two periods."""
    lines = []
    for name, period in zip("AB", periods, strict=True):
        begin, end = period.bounds
        if name in found.empty:
            lines.append(f"The log has no record of {name}, from {log.shown(begin)} to {log.shown(end)}.\n")
        elif begin < found.first and period.begin.year > 1:
            lines.append(
                f"{name} begins before the log, whose first record is of {log.shown(found.first)}.\n"
            )
    if found.unnamed:
        lines.append(
            f"Records of subscriptions that do not name all channels: {found.unnamed:,}. Some may be missing here.\n"
        )
    if found.nameless:
        lines.append(
            "Refusals above the budget were only counted, and are not in this answer; see relay audit stats.\n"
        )
    return lines
