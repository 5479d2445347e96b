"""`relay audit sql`: a query over the log."""

import csv
import itertools
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.audit.export import safe_cell
from relay.cli.audit.input import Log, query, reading
from relay.cli.audit.output import print_rows
from relay.cli.audit.replaced import check_target, replaced
from relay.cli.options import JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError, RelayError

_TABLE_ROWS = 1000
"""Rows of a table: more of them are read by no person."""


@query
def sql(
    log: Log,
    select: Annotated[
        str,
        typer.Argument(
            metavar="SELECT", help="The query, in DuckDB's SQL. Without one: the views and their columns."
        ),
    ] = "",
    *,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV.")] = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write a Parquet file.")
    ] = None,
    timeout: Annotated[
        int,
        typer.Option("--timeout", metavar="SECONDS", min=1, max=86_400, help="The longest time for a query."),
    ] = 60,
) -> None:
    """Ask the log a question in SQL, or list the views that can be asked."""
    if as_json + as_csv + (parquet is not None) > 1:
        raise ConfigurationError("Give one of --json, --csv and --parquet.")
    if parquet is not None:
        check_target(parquet, option="--parquet", logs=log.files)
    index = log.index
    from relay.audit.index.sql import asked, unlike, write_parquet
    from relay.audit.index.views import VIEWS

    if not select.strip():
        rows = [
            {"view": name, "column": column, "meaning": meaning}
            for name, view in VIEWS.items()
            for column, meaning in {"": f"A row is {view.row}.", **view.columns}.items()
        ]
        print_rows(rows, as_json=as_json, columns=("view", "column", "meaning"), nothing="")
        return
    try:
        with ExitStack() as stack:
            with reading(log.size) as progress:
                answer = stack.enter_context(asked(index, select, timeout_s=timeout, progress=progress))
            names = [name for name, _ in answer.columns]
            if parquet is not None:
                with replaced(parquet, option="--parquet", logs=log.files) as file:
                    write_parquet(index, answer, file)
            elif as_csv:
                writer = csv.writer(sys.stdout, lineterminator="\r\n")
                writer.writerow(map(safe_cell, names))
                for row in answer.rows:
                    writer.writerow([safe_cell(_text(value)) for value in row])
            elif as_json:
                begin, names = "[", unlike(names)
                for row in answer.rows:
                    sys.stdout.write(begin + json.dumps(dict(zip(names, row, strict=True))))
                    begin = ",\n"
                sys.stdout.write(("[]" if begin == "[" else "]") + "\n")
            else:
                some = list(itertools.islice(answer.rows, _TABLE_ROWS + 1))
                _print_table(names, some[:_TABLE_ROWS])
                if len(some) > _TABLE_ROWS:
                    sys.stderr.write(
                        f"The first {_TABLE_ROWS:,} rows are shown; --csv and --json have all.\n"
                    )
    except OSError as error:
        if error.filename is None:  # of standard output
            raise
        raise RelayError(f"{printable(str(error.filename))} can't be written: {error.strerror}.") from None


def _print_table(names: list[str], rows: list[list[object]]) -> None:
    from relay.cli.tables import print_table

    if not rows:
        sys.stdout.write("No rows.\n")
        return
    numbers = [
        name
        for at, name in enumerate(names)
        if all(row[at] is None or isinstance(row[at], int | float) for row in rows)
    ]
    print_table(names, [[str(_text(value)) for value in row] for row in rows], right=numbers)


def _text(value: object) -> object:
    """Return a value as a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    return json.dumps(value) if isinstance(value, list | dict) else value
