"""Questions to an index: DuckDB over its parts, and over the tails of the log's files, which were just read."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import msgspec

from relay.audit.index import manifest
from relay.audit.index.copies import database_of
from relay.audit.index.native import duckdb
from relay.audit.index.parts import (
    Indexed,
    Parts,
    Progress,
    batches,
    encode_rows,
    load,
    quoted,
    sources,
    summary_of,
)
from relay.audit.index.rows import rows_of
from relay.audit.index.views import NO_ROW, PLACE
from relay.core.errors import RelayError

_SOME_ROWS = 10_000
"""Rows of an answer that are fetched at a time."""

Span = tuple[str, str | None]
"""The first and the last time of the records that are asked about; "" and None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Up to where an index knows a log: the number of its last record in each chain, and the time of the newest.

    `unfinished` are bytes of a last line that its writer has not finished.
    """

    records: int
    at: str
    last: dict[str, int]
    unfinished: int


class Index:
    """The index of a log, brought up to date. Use it in a `with` block: it keeps the log's files open.

    The view `lines` has a row for each line of the log: `file`, the number of its file, and the columns of `Row`. The
    view `spanned` has those of them that are records of `span`. `summaries` have the numbers of their files too.
    """

    def __init__(
        self,
        folder: Path,
        logs: Sequence[Path],
        *,
        memory_mb: int,
        chains: int = 1,
        span: Span = ("", None),
        progress: Progress = lambda _done: None,
    ) -> None:
        """Bring the index up to date. The lines of several chains are in the order of their times.

        Raises:
            ConfigurationError: if others can write into its folder.
            OSError: if the log can't be read, or the index can't be written.
        """
        try:
            self._open(folder, logs, memory_mb, chains, span, progress)
        except duckdb.Error as error:
            raise OSError(str(error).partition("\n")[0]) from None

    def _open(
        self, folder: Path, logs: Sequence[Path], memory_mb: int, chains: int, span: Span, progress: Progress
    ) -> None:
        self.span = span
        self.folder = folder
        self.order = "place" if chains < 2 else "moment, place"
        self._unfinished = 0
        self.memory_mb = memory_mb
        manifest.open_folder(folder)
        with ExitStack() as stack:
            self._database = stack.enter_context(self._connect(folder))
            parts = Parts(folder, self._database, stack)
            self.files = parts.update(logs, progress)
            self.rebuilt = parts.rebuilt
            self.summaries = [
                (number, part.summary) for number, found in enumerate(self.files) for part in found.parts
            ]
            self._make_views(self._load_tails(folder))
            self._stack = stack.pop_all()

    def __enter__(self) -> "Index":
        """Keep the files open until `__exit__`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log's files and the database."""
        self._stack.close()

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the answer to a query over `lines`.

        Raises:
            RelayError: if the database can't answer, as with too little memory.
        """
        with _answering():
            return list(self._database.execute(query, list(parameters)).fetchall())

    def each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of an answer that may not fit into memory. No other query may be asked until the end.

        Raises:
            RelayError: if the database can't answer.
        """
        with _answering():
            found = self._database.execute(query)
            while some := found.fetchmany(_SOME_ROWS):
                yield from some

    def execute(self, statement: str) -> None:
        """Run a statement that has no answer, as one that makes a temporary table.

        Raises:
            RelayError: if the database can't.
        """
        with _answering():
            self._database.execute(statement)

    def load_table(self, name: str, columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> None:
        """Make a temporary table of rows. `columns` have their types."""
        kind = msgspec.json.encode([dict(columns)]).decode()
        data = msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()
        with _answering():
            self._database.execute(
                f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT unnest(from_json(?, '{kind}'), recursive := true)",
                [data],
            )

    def known(self) -> Known:
        """Return up to where the index knows the log."""
        last: dict[str, int] = {}
        for _, summary in self.summaries:
            for writer, seq in summary.seqs.items():
                last[writer] = max(seq, last.get(writer, seq))
        return Known(
            records=sum(summary.records for _, summary in self.summaries),
            at=max((summary.latest for _, summary in self.summaries), default=""),
            last={writer: last[writer] for writer in sorted(last) if writer},
            unfinished=self._unfinished,
        )

    def lines(
        self, where: str, parameters: Sequence[object] = (), *, newest: int | None = None
    ) -> Iterator[bytes]:
        """Read the log's lines whose rows fulfil a condition, in the order of the log; or only the `newest` of them.

        Raises:
            OSError: if the log can't be read.
        """
        return (line for _, line in self.placed_lines(where, parameters, newest=newest))

    def placed_lines(
        self, where: str, parameters: Sequence[object] = (), *, newest: int | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Read the same lines, each with its place in the log."""
        query = f"SELECT place, file, start, length FROM lines WHERE {where} ORDER BY "
        if newest is None:
            found = self.rows(query + self.order, parameters)
        else:
            backwards = ", ".join(f"{name} DESC" for name in self.order.split(", "))
            found = self.rows(f"{query}{backwards} LIMIT {newest}", parameters)[::-1]
        for place, number, start, length in found:
            yield place, os.pread(self.files[number].file, length, start)

    def differing(self, folder: Path) -> int:
        """Read the log again, and return how many rows of the parts are not what it says.

        The sums of a part can't show what somebody wrote who can write the manifest too.

        Raises:
            OSError: if the log can't be read, or the rows of it can't be written aside.
        """
        differing = 0
        with TemporaryDirectory(dir=folder, prefix=".again-") as aside:
            for found in self.files:
                if not found.parts:
                    continue
                rows, at = Path(aside) / "rows.json", 0
                with rows.open("wb") as sink:
                    for lines in batches(found.file, 0, found.end, to_end=True):
                        sink.write(encode_rows(rows_of(lines, at)))
                        at += sum(map(len, lines))
                load(self._database, "again", rows)
                parts = sources(found.opened)
                differing += self.rows(
                    f"SELECT (SELECT count(*) FROM (SELECT * FROM {parts} EXCEPT ALL SELECT * FROM again))"
                    f" + (SELECT count(*) FROM (SELECT * FROM again EXCEPT ALL SELECT * FROM {parts}))"
                )[0][0]
                self._database.execute("DROP TABLE again")
        return differing

    def databases(self, aside: Path, progress: Progress = lambda _done: None) -> list[tuple[int, Path]]:
        """Return databases with a table `lines` each, and the numbers of the files that their rows are of.

        Those of parts are kept. Those of what was written after the parts are made in the folder `aside`.

        Raises:
            OSError: if they can't be written.
        """
        found = []
        for number, file in enumerate(self.files):
            for part, opened in zip(file.parts, file.opened, strict=True):
                path = self.folder / part.name
                found.append((number, database_of(path, opened, part.sha256, self._copy)))
                progress(part.end - part.begin)
            if file.end < file.size:
                path = aside / f"tail-{number}.duckdb"
                self._copy(f"tail_{number}", path)
                found.append((number, path))
        return found

    def write_parquet(self, rows: Path, columns: Mapping[str, str], path: Path) -> None:
        """Write rows of JSON as a Parquet file.

        Raises:
            RelayError: if it can't be written.
        """
        with _answering():
            self._database.execute(
                f"COPY (SELECT * FROM read_json({quoted(rows)}, format='newline_delimited', "
                f"columns={_struct(columns)}, maximum_object_size={1 << 25})) TO {quoted(path)} (FORMAT parquet)"
            )

    def _copy(self, source: str, path: Path) -> None:
        """Write the rows of a table or a part as a database of its own."""
        self.execute(f"ATTACH {quoted(path)} AS copied")
        try:
            self.execute(f"CREATE TABLE copied.lines AS SELECT * FROM {source}")
        finally:
            self.execute("DETACH copied")

    def _connect(self, folder: Path) -> Any:
        return duckdb.connect(
            config={
                "memory_limit": f"{self.memory_mb}MB",
                "threads": 2,
                "temp_directory": str(folder / ".spill"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )

    def _load_tails(self, folder: Path) -> list[int]:
        """Read what was written after the parts, and return the numbers of the files that have such a tail."""
        numbers = [number for number, found in enumerate(self.files) if found.end < found.size]
        if numbers:
            with TemporaryDirectory(dir=folder, prefix=".tail-") as aside:
                for number in numbers:
                    self._load_tail(self.files[number], Path(aside) / "rows.json", f"tail_{number}")
                    self.summaries.append((number, summary_of(self._database, f"tail_{number}")))
        return numbers

    def _load_tail(self, found: Indexed, rows: Path, table: str) -> None:
        at = found.end
        with rows.open("wb") as sink:
            for lines in batches(found.file, at, found.size, to_end=False):
                sink.write(encode_rows(rows_of(lines, at)))
                at += sum(map(len, lines))
        self._unfinished += found.size - at
        load(self._database, table, rows)

    def _make_views(self, tails: Sequence[int]) -> None:
        """Make the views of the parts and the tails."""
        opened = [(number, file) for number, found in enumerate(self.files) for file in found.opened]
        selects = [f"SELECT {number} AS file, * FROM tail_{number}" for number in tails]
        if opened:
            numbers = [number for number, _ in opened]
            selects.append(
                f"SELECT {numbers}[file_index::BIGINT + 1] AS file, * FROM {sources(file for _, file in opened)}"
            )
        every = " UNION ALL ".join(selects) or f"SELECT 0 AS file, {NO_ROW} WHERE false"
        since, until = self.span
        self._database.execute(
            f"CREATE TEMP VIEW lines AS SELECT *, {PLACE} AS place FROM ({every});"
            f"CREATE TEMP VIEW spanned AS SELECT * FROM lines WHERE NOT bad AND moment >= '{since}'"
            + ("" if until is None else f" AND moment <= '{until}'")
        )


def _struct(columns: Mapping[str, str]) -> str:
    """Return columns with their types as SQL has a struct."""
    texts = [(name.replace("'", "''"), kind) for name, kind in columns.items()]
    return "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in texts) + "}"


@contextmanager
def _answering() -> Iterator[None]:
    """Turn an error of the database into one of the relay."""
    try:
        yield
    except duckdb.Error as error:
        why = str(error).partition("\n")[0]
        setting = "audit.index_memory_mb: " if isinstance(error, duckdb.OutOfMemoryException) else ""
        raise RelayError(f"The index of the audit log gave no answer ({setting}{why}).") from None
