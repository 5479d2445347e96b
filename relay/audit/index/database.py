"""Questions to an index: DuckDB over its parts, and over the tails of the log's files, which were just read."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import msgspec

from relay.audit.index import manifest
from relay.audit.index.copies import COPIES, Copied, database_of, groups
from relay.audit.index.manifest import ALL, Part, Summary
from relay.audit.index.native import duckdb
from relay.audit.index.opening import opened
from relay.audit.index.parts import (
    Parts,
    Progress,
    batches,
    load,
    quoted,
    sources,
    summary_of_rows,
    write_rows,
)
from relay.audit.index.rows import Row
from relay.audit.index.sheets import PLACE, SHEETS, SUMS, VIEWS, View, no_rows, viewed, whole
from relay.audit.query.records import epoch_ms, iso_of, record_of
from relay.core.errors import RelayError
from relay.net.sockets import raise_file_limit

_FIRST = 64 << 10
"""Bytes in which a file's first line ends; only a forged one is longer."""
_SOME_ROWS = 10_000
"""Rows of an answer that are fetched at a time."""

Span = tuple[str, str | None]
"""The first and the last time of the records that are asked about; "" and None: all."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where an index knows a log: the number of its last record in each chain, and the time of the newest.

    `begins` is the time of the earliest record. `unfinished` are bytes of a last line that its writer has not finished.
    """

    records: int
    begins: str
    at: str
    last: dict[str, int]
    unfinished: int


class Index:
    """The index of a log, brought up to date. Use it in a `with` block: it keeps the log's files open.

    Queries name the views of `relay.audit.index.sheets`. `lines` has a row for each line of the log: `file`, the number
    of its file, and the columns of `Row`. `spanned` has those of them that are records of `span`. A sheet of a part is
    checked when the first query needs it. `summaries` have the numbers of their files too.
    """

    def __init__(
        self,
        folder: Path,
        logs: Sequence[Path],
        *,
        memory_mb: int,
        chains: int = 1,
        span: Span = ("", None),
        killed: Mapping[str, str] = MappingProxyType({}),
        progress: Progress = lambda _done: None,
    ) -> None:
        """Bring the index up to date. The lines of several chains are in the order of their times.

        `killed` are the chains whose processes were killed and that none has continued, each with the time now.

        Raises:
            ConfigurationError: if others can write into its folder.
            OSError: if the log can't be read, or the index can't be written.
        """
        self.killed = killed
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
        self._views: set[str] = set()
        self._tails: list[tuple[int, str]] = []
        self._reread: dict[str, str] = {}
        self.memory_mb = memory_mb
        raise_file_limit()  # each file of the log has a file for each sheet
        manifest.open_folder(folder)
        with ExitStack() as stack:
            self._database = stack.enter_context(self._connect(folder))
            self._parts = Parts(folder, self._database, stack)
            self.files = self._parts.update(logs, progress)
            self.rebuilt = self._parts.rebuilt
            self.summaries = [
                (number, part.summary) for number, found in enumerate(self.files) for part in found.parts
            ]
            self._load_tails()
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
            self._make_views(query)
            return list(self._database.execute(query, list(parameters)).fetchall())

    def each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of an answer that may not fit into memory. No other query may be asked until the end.

        Raises:
            RelayError: if the database can't answer.
        """
        with _answering():
            self._make_views(query)
            found = self._database.execute(query)
            while some := found.fetchmany(_SOME_ROWS):
                yield from some

    def execute(self, statement: str) -> None:
        """Run a statement that has no answer, as one that makes a temporary table.

        Raises:
            RelayError: if the database can't.
        """
        with _answering():
            self._make_views(statement)
            self._database.execute(statement)

    def make_keys_around(self, span: Span) -> None:
        """Make the view `keys_around`: the rows of `keys` that tell what was open or valid in a span of time.

        Of parts without records of that time, these are few.

        Raises:
            RelayError: if the database can't.
        """
        parts = [(number, part, _is_spanned(part.summary, span)) for number, part in self._all_parts()]
        with _answering():
            within = self._rows_of("keys", [(number, part) for number, part, is_within in parts if is_within])
            others = self._rows_of_parts(
                "loose", [(number, number, part) for number, part, is_within in parts if not is_within]
            )
            rows = " UNION ALL BY NAME ".join([within, *others])
            self._database.execute(
                f"CREATE OR REPLACE TEMP VIEW keys_around AS SELECT *, {PLACE} AS place FROM ({rows})"
            )

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
            begins=min((summary.earliest for _, summary in self.summaries if summary.records), default=""),
            at=max((summary.latest for _, summary in self.summaries), default=""),
            last={writer: last[writer] for writer in sorted(last) if writer},
            unfinished=self._unfinished,
        )

    def first_seq(self, number: int, writer: str) -> int | None:
        """Return the number in its chain of a file's first record. None: it is none, or of another chain."""
        line, *_ = next(batches(self.files[number].file, 0, _FIRST, to_end=True), [b""])
        try:
            chain = record_of(line).relay.chain
        except ValueError:
            return None
        return chain.seq if chain.writer == writer else None

    def lines(
        self, where: str, parameters: Sequence[object] = (), *, newest: int | None = None, of: str = "lines"
    ) -> Iterator[bytes]:
        """Read the log's lines whose rows in a view fulfil a condition, in the order of the log; or only the `newest`.

        Raises:
            RelayError: if the database can't answer.
            OSError: if the log can't be read.
        """
        return (line for _, line in self.placed_lines(where, parameters, newest=newest, of=of))

    def placed_lines(
        self, where: str, parameters: Sequence[object] = (), *, newest: int | None = None, of: str = "lines"
    ) -> Iterator[tuple[int, bytes]]:
        """Read the same lines, each with its place in the log."""
        query = f"SELECT place, file, start, length FROM {of} WHERE {where} ORDER BY "
        if newest is None:
            found = self.rows(query + self.order, parameters)
        else:
            backwards = ", ".join(f"{name} DESC" for name in self.order.split(", "))
            found = self.rows(f"{query}{backwards} LIMIT {newest}", parameters)[::-1]
        for place, number, start, length in found:
            yield place, self.line(number, start, length)

    def line(self, file: int, start: int, length: int) -> bytes:
        """Read a line of the log, where a row says that it is.

        Raises:
            OSError: if the log can't be read.
        """
        return os.pread(self.files[file].file, length, start)

    def differing(self) -> int:
        """Read the log again, and return how many rows of the parts are not what it says.

        The sums of a part can't show what somebody wrote who can write the manifest too.

        Raises:
            RelayError: if the log was changed meanwhile.
            OSError: if the log can't be read, or the rows of it can't be written aside.
        """
        return sum(
            self._differing(number, part) for number, found in enumerate(self.files) for part in found.parts
        )

    def _differing(self, number: int, part: Part) -> int:
        """Return how many rows of a part's sheets are not what its lines say."""
        self._read_again(number, part, "again")
        differing = 0
        for sheet, query in SHEETS.items():
            has, should = f"SELECT * FROM {self._source(number, part, sheet)}", query.format(rows="again")
            for one, other in ((has, should), (should, has)):
                differing += self.rows(f"SELECT count(*) FROM (({one}) EXCEPT ALL ({other}))")[0][0]
        self.execute("DROP TABLE again")
        return differing

    def newest(self) -> str:
        """Return the time of the newest record of the span, or ""."""
        if self.span == ("", None):
            return self.known().at
        ((newest,),) = self.rows("SELECT max(moment) FROM spanned_keys")
        return "" if newest is None else iso_of(newest)

    def databases(
        self, copies: Sequence[str], aside: Path, progress: Progress = lambda _done: None
    ) -> list[Copied]:
        """Return databases with some copies of all rows: see `relay.audit.index.copies`.

        They are in the folder `aside`. Those of parts are also kept, for other questions.

        Raises:
            OSError: if they can't be written.
        """
        found = []
        for group in groups((number, part) for number, part in self._all_parts() if not part.is_small):
            parts = [part for _, part in group]
            files = tuple(number for number, _ in group)
            for name in copies:
                path = database_of(
                    self.folder, name, parts, partial(self._copy_parts, group, name), aside=aside
                )
                found.append(Copied(path=path, files=files, names=(name,)))
            progress(sum(part.end - part.begin for part in parts))
        small = [
            (number, self._source(number, part, ALL)) for number, part in self._all_parts() if part.is_small
        ]
        for at, (number, rows) in enumerate([*small, *self._tails]):
            path = aside / f"{at}.duckdb"
            self._copy(
                {
                    name: f"(SELECT 0 AS file, * FROM {rows} WHERE rare = {COPIES[name].sheet == 'rare'})"
                    for name in copies
                },
                path,
            )
            found.append(Copied(path=path, files=(number,), names=tuple(copies)))
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

    def _copy_parts(self, group: Sequence[tuple[int, Part]], name: str, path: Path) -> None:
        """Write a copy of a group of parts as a database of its own. `file` is the place in the group."""
        sheet = COPIES[name].sheet
        selects = self._rows_of_parts(sheet, [(number, at, part) for at, (number, part) in enumerate(group)])
        self._copy({name: f"({whole(sheet, ' UNION ALL BY NAME '.join(selects))})"}, path)

    def _copy(self, rows: Mapping[str, str], path: Path) -> None:
        """Write copies, by name, of tables with all columns as a database of its own."""
        self.execute(f"ATTACH {quoted(path)} AS copied")
        try:
            for name, table in rows.items():
                self.execute(f"CREATE TABLE copied.{name} AS {COPIES[name].query.format(rows=table)}")
        finally:
            self.execute("DETACH copied")

    def _connect(self, folder: Path) -> Any:
        database = opened()
        database.execute(f"SET memory_limit = '{self.memory_mb}MB'")
        database.execute(f"SET temp_directory = {quoted(folder / '.spill')}")
        return database

    def _all_parts(self) -> Iterator[tuple[int, Part]]:
        """Yield all parts, each with the number of its file."""
        return ((number, part) for number, found in enumerate(self.files) for part in found.parts)

    def _load_tails(self) -> None:
        """Read what was written after the parts."""
        for number, found in enumerate(self.files):
            if found.end < found.size:
                table = f"tail_{number}"
                rows: list[Row] = []
                end, _ = self._load(table, found.file, found.end, found.size, to_end=False, kept=rows)
                self._unfinished += found.size - end
                self._tails.append((number, table))
                self.summaries.append((number, summary_of_rows(rows)))

    def _load(
        self, table: str, file: int, begin: int, end: int, *, to_end: bool, kept: list[Row] | None = None
    ) -> tuple[int, str]:
        """Make a table of the rows of a range of a file, which `kept` gets too.

        Return where its last line ends, and the lines' SHA-256.
        """
        rows = self.folder / f".{table}.{os.getpid()}.new"
        try:
            found = write_rows(file, begin, end, rows, to_end=to_end, kept=kept)
            load(self._database, table, rows)
        finally:
            rows.unlink(missing_ok=True)
        return found

    def _read_again(self, number: int, part: Part, table: str) -> None:
        """Make a table of the rows of a part's lines.

        Raises:
            RelayError: if these are not the lines that the part was made from.
        """
        found = self.files[number]
        _, log_sha256 = self._load(table, found.file, part.begin, part.end, to_end=True)
        if log_sha256 != part.log_sha256:
            raise RelayError("The audit log was changed while it was asked. Ask again.")

    def _source(self, number: int, part: Part, sheet: str) -> str:
        """Return a sheet of a part as a table of SQL: its file, or if that is damaged, a query to the part's lines."""
        kept = ALL if part.is_small else sheet
        if self._parts.is_sound(part, kept):
            rows = sources([self._parts.file(part, kept)])
        else:
            if part.name not in self._reread:
                table = self._reread[part.name] = f"reread_{len(self._reread)}"
                self._read_again(number, part, table)
            rows, kept = self._reread[part.name], ALL
        return rows if kept == sheet else f"({SHEETS[sheet].format(rows=rows)})"

    def _make_views(self, query: str) -> None:
        """Make the views that a query names, of sheets that are checked now."""
        named = {*re.findall(r"\w+", query)} - self._views
        for name in VIEWS.keys() & named:
            self._views.add(name)
            self._database.execute(f"CREATE TEMP VIEW {name} AS {self._selected(VIEWS[name])}")

    def _selected(self, view: View) -> str:
        """Return the query for the rows of a view."""
        since, until = self.span if view.is_bounded else ("", None)
        bound = (lambda at: str(epoch_ms(at))) if "keys" in view.sheets else "'{}'".format
        bounds = [f"moment >= {bound(since)}"] if since else []
        bounds += [] if until is None else [f"moment <= {bound(until)}"]
        if bounds and view.sheets[0] in SUMS:
            self._make_views("spanned_keys")
            rows = SHEETS[view.sheets[0]].format(rows="(SELECT * REPLACE (place AS start) FROM spanned_keys)")
            return f"SELECT *, start AS place FROM ({rows})" if view.has_places else rows
        parts = [
            (number, part)
            for number, part in self._all_parts()
            if not bounds or _is_spanned(part.summary, self.span)
        ]
        every = " UNION ALL BY NAME ".join(self._rows_of(sheet, parts) for sheet in view.sheets)
        if view.is_bounded and "rare" in view.sheets:
            bounds.append("NOT bad")
        found = f"SELECT *, {PLACE} AS place FROM ({every})" if view.has_places else every
        return f"{found} WHERE {' AND '.join(bounds)}" if bounds else found

    def _rows_of(self, sheet: str, parts: Iterable[tuple[int, Part]]) -> str:
        """Return the query for a sheet of parts, and of all tails."""
        selects = [
            f"SELECT {number} AS file, * FROM ({SHEETS[sheet].format(rows=table)})"
            for number, table in self._tails
        ]
        selects += self._rows_of_parts(sheet, [(number, number, part) for number, part in parts])
        return viewed(sheet, " UNION ALL BY NAME ".join(selects)) if selects else no_rows(sheet)

    def _rows_of_parts(self, sheet: str, parts: Iterable[tuple[int, int, Part]]) -> list[str]:
        """Return the queries for a sheet of parts: each with the number of its file, and what `file` is in its rows."""
        selects = []
        sound: list[tuple[int, int]] = []
        placed = list(parts)
        self._parts.check([part for *_, part in placed if not part.is_small], sheet)
        for number, shown, part in placed:
            if not part.is_small and self._parts.is_sound(part, sheet):
                sound.append((shown, self._parts.file(part, sheet)))
            else:
                selects.append(f"SELECT {shown} AS file, * FROM {self._source(number, part, sheet)}")
        if sound:
            numbers, files = zip(*sound, strict=True)
            selects.append(f"SELECT {_number_of(numbers)} AS file, * FROM {sources(files)}")
        return selects


def _is_spanned(summary: Summary, span: Span) -> bool:
    """Tell whether rows may be records of a span: these alone are read then, and their sheets checked."""
    since, until = span
    return summary.latest >= since and (until is None or summary.earliest <= until)


def _number_of(numbers: Sequence[int]) -> str:
    """Return the number of the log's file that a row is of, as SQL, if these are the numbers of its sources."""
    first, last = numbers[0], numbers[-1]
    if all(number == min(first + index, last) for index, number in enumerate(numbers)):
        return f"least(file_index::BIGINT + {first}, {last})"
    return f"{list(numbers)}[file_index::BIGINT + 1]"  # a fifth of the time of a question about connections


def _struct(columns: Mapping[str, str]) -> str:
    """Return columns with their types as SQL has a struct."""
    texts = [(name.replace("'", "''"), kind) for name, kind in columns.items()]
    return "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in texts) + "}"


@contextmanager
def _answering() -> Iterator[None]:
    """Turn an error of the database into one of the relay."""
    try:
        yield
    except OSError as error:
        raise RelayError(f"The audit log can't be read, or its index not written: {error}.") from None
    except duckdb.Error as error:
        why = str(error).partition("\n")[0]
        setting = "audit.index_memory_mb: " if isinstance(error, duckdb.OutOfMemoryException) else ""
        raise RelayError(f"The index of the audit log gave no answer ({setting}{why}).") from None
