"""The one printer of tables: ids, times and names of settings are never broken.

Into a pipe each record is one line, with tabs between its cells and the columns' names in the first line. On a terminal
it is a table, or a block of lines for each record, one for each cell with a text, if the table is wider than the
terminal.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relay.cli.output import printable

if TYPE_CHECKING:
    from rich.table import Table

PROSE_WIDTH = 26
"""Columns that a sentence gets at least: a date with its time stays on one line."""


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), prose: str = ""
) -> None:
    """Print records. `right` are the columns with numbers; the column `prose` has sentences, which may be wrapped."""
    cells = rows
    if not "".join(map("".join, rows)).isprintable():
        cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.write("".join("\t".join(line) + "\n" for line in (columns, *cells)))
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console()
    widest = [max(column, key=cell_len) for column in zip(columns, *cells, strict=True)]
    sentence = widest[columns.index(prose)] if prose in columns else ""
    spare = max(0, cell_len(sentence) - PROSE_WIDTH)
    unbound = console.options.update(max_width=1_000_000)
    # the widest cells alone are as wide as the whole table, and measured in no time
    width = console.measure(_table(columns, [widest], right, prose), options=unbound).maximum
    if width - spare <= console.width:
        console.print(_table(columns, cells, right, prose))
        return
    label_width = max(map(len, columns))
    labels = []
    for name in columns:  # once, and not in each block: rich needs a fifth of a millisecond for each
        with console.capture() as label:
            console.print(Text(f"{name:>{label_width}}  ", style="dim"), end="", soft_wrap=True)
        labels.append(label.get())
    for row in cells:
        # the terminal wraps a long line, and a copy of it is whole
        lines = (label + cell + "\n" for label, cell in zip(labels, row, strict=True) if cell)
        sys.stdout.write("".join(lines) + "\n")


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], prose: str
) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name != prose)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
