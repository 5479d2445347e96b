"""How the queries' answers are printed: as JSON, or as a table."""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from relay.cli.tables import print_table


def fields_of(row: object) -> dict[str, Any]:
    """Return the fields of a row of an answer, without the copies that `dataclasses.asdict` makes."""
    found: dict[str, Any] = msgspec.to_builtins(row)
    return found


def print_rows(
    rows: Sequence[dict[str, Any]],
    *,
    as_json: bool,
    columns: Sequence[str],
    nothing: str,
    right: Sequence[str] = (),
) -> None:
    """Print rows as JSON, or as a table of these columns. `nothing` is the sentence for an empty answer."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        sys.stdout.write(f"{nothing}\n")
        return
    cells = [_cells([row[name] for row in rows]) for name in columns]
    print_table(
        [name.replace("_", " ") for name in columns],
        [*zip(*cells, strict=True)],
        right=[name.replace("_", " ") for name in right],
    )


def print_json(value: object) -> None:
    """Print a value as a line of JSON."""
    import json  # a table needs none, and it takes as long as some questions

    sys.stdout.write(json.dumps(value) + "\n")


def _cells(values: list[Any]) -> list[str]:
    """Return the cells of a column, most of which have texts only."""
    return values if {*map(type, values)} == {str} else [*map(_cell, values)]


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
