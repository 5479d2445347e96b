"""The one printer of tables: ids, times and names of settings are never broken.

Into a pipe each record is one line, with tabs between its cells and the columns' names in the first line. On a terminal
it is a table, or a block of lines for each record, one for each cell with a text, if the table is wider than the
terminal.
"""

import sys
from collections.abc import Sequence

from relay.cli.output import printable

PROSE_WIDTH = 26
"""Columns that a sentence gets at least: a date with its time stays on one line."""


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), prose: str = ""
) -> None:
    """Print records. `right` are the columns with numbers; the column `prose` has sentences, which may be wrapped."""
    cells = [row if "".join(row).isprintable() else [printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.write("".join("\t".join(line) + "\n" for line in (columns, *cells)))
        return
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name != prose)
    for row in cells:
        table.add_row(*map(Text, row))
    unbound = console.options.update(max_width=1_000_000)
    sentences = [cell for row in cells for name, cell in zip(columns, row, strict=True) if name == prose]
    spare = max(0, max(map(cell_len, sentences), default=0) - PROSE_WIDTH)
    if console.measure(table, options=unbound).maximum - spare <= console.width:
        console.print(table)
        return
    width = max(map(len, columns))
    for row in cells:
        for name, cell in zip(columns, row, strict=True):
            if not cell:
                continue
            # soft: the terminal wraps a long line, and a copy of it is whole
            console.print(Text(f"{name:>{width}}  ", style="dim") + Text(cell), soft_wrap=True)
        console.print()
