"""How the queries' answers are printed: as JSON, or as a table."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.cli.output import printable


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
        sys.stdout.write(json.dumps(list(rows)) + "\n")
        return
    console = Console()
    if not rows:
        console.print(Text(nothing))  # Text: it may quote an argument that looks like Rich's markup
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
