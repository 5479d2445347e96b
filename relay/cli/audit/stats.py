"""`relay audit stats`: the log in numbers."""

import sys
from typing import Annotated, Any

import typer

from relay.cli.audit.input import Log, query
from relay.cli.audit.output import print_json, print_rows
from relay.cli.options import JsonOption
from relay.cli.output import printable
from relay.core.quantities import counted


@query
def stats(
    log: Log,
    *,
    by_day: Annotated[
        bool,
        typer.Option(
            "--by-day", help="Count the refusals of each day instead: UTC, or with --local this machine's."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count the log: actions, refusals with their reasons, endpoints, who was refused most."""
    index = log.index
    from relay.audit.index import questions

    if by_day:
        columns = ("day", "action", "reason", "count")
        day_of = (lambda at: log.shown(at)[:10]) if log.local and not as_json else None
        counts = questions.refusals_by_day(index, day_of=day_of)
        counts.sort(key=lambda row: (row[0], -row[3]))
        rows = [dict(zip(columns, row, strict=True)) for row in counts]
        print_rows(
            rows,
            as_json=as_json,
            columns=columns,
            nothing=log.nothing("Nothing was refused in this time."),
            right=["count"],
        )
        return
    found = questions.stats(index)
    refusals = [
        {"action": action, "reason": reason, "count": count}
        for (action, reason), count in found.refusals.most_common()
    ]
    tables: dict[str, list[dict[str, Any]]] = {
        "actions": _counted("action", found.actions.most_common()),
        "refusals": refusals,
        "endpoints": _counted("endpoint", found.endpoints.most_common()),
        "users_refused": _counted("user", found.users.most_common(questions.TOP)),
        "addresses_refused": _counted("address", found.addresses.most_common(questions.TOP)),
        "lost": _counted("action", found.lost.most_common()),
    }
    if as_json:
        facts = {"records": found.records, "first": found.first, "last": found.last}
        print_json(facts | tables)
        return
    span = (
        f", from {printable(log.shown(found.first))} to {printable(log.shown(found.last))}"
        if found.records
        else ""
    )
    sys.stdout.write(f"{counted(found.records, 'record')}{span}\n")
    for name, rows in tables.items():
        if rows:
            title = name.replace("_", " ")
            if sys.stdout.isatty():
                title = typer.style(title, bold=True)
            sys.stdout.write(f"\n{title}\n")
            print_rows(rows, as_json=False, columns=list(rows[0]), nothing="", right=["count"])


def _counted(name: str, counts: list[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{name: key or "-", "count": count} for key, count in counts if count]
