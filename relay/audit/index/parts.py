"""The parts of an index: brought up to date, and their sheets checked before they are used.

A file that is complete has one part and is read once. The file that is being written has a few parts, and the tail
after them is read at each question. A longer tail becomes a small part, which is fast to make and is made again with
the tail after it, until it is long enough for sheets. Several parts become a larger one. So almost every line is read
once, and a question reads a short tail and few parts.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec

from relay.audit.index import copies, manifest
from relay.audit.index.manifest import ALL, Part, State, Summary
from relay.audit.index.native import duckdb
from relay.audit.index.rows import COLUMNS, DEFAULTS, DERIVED, SHORT, Row, rows_of
from relay.audit.index.sheets import SHEETS, text_of, whole

Progress = Callable[[int], None]
"""Gets the bytes of the log that came into the index, or were found there, since the last call."""

_LONGEST_TAIL = 64 << 10
"""Bytes of a tail that are read at each question, at most: some 90 records."""
_LONGEST_SMALL = 2 << 20
"""Bytes of a small part, at most: some 3,000 records, which are made again with each tail that is added to them."""
_MOST_PARTS = 8
"""Parts of a file that is being written. With one more, the newest become one."""
_ORDER = "rare, action, start"
"""The order of rows: by what questions ask for first, so that they pass over groups of rows that have nothing of it."""
_ORDERS = {"keys": " ORDER BY action, user_id, start"}
"""Sheets with an order of their own. A question about a user passes over the other users' rows."""
_WHOLE = ("rare", "usual")
"""The sheets that have all rows."""
_SMALL: Mapping[str, str] = {ALL: "SELECT * FROM {rows}"}
_GROUP = 16_384
"""Rows of a group: a question reads some of the groups only."""
_MOST_COUNTS = 1000
"""Kinds of records that a part counts."""
_RECENT_NS = 2_000_000_000
"""A file that was changed so shortly before it was looked at may have changed again without another time."""
_LEFT_NS = 86_400_000_000_000
"""Age of a temporary folder or file that no question uses any more."""
_CHUNK = 1 << 20
_MAX_ROW = 8 << 20
"""Bytes of a row, at most: the row of a forged line, with all texts and lists as long as they can be."""

encode_rows = msgspec.json.Encoder().encode_lines


class Indexed(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the log that is open, its parts in their order, and the bytes from which on its lines are the tail."""

    path: Path
    file: int
    parts: Sequence[Part]
    size: int

    @property
    def end(self) -> int:
        """Where the tail begins."""
        return self.parts[-1].end if self.parts else 0


class Parts:
    """The parts in a folder, which `database` makes."""

    def __init__(self, folder: Path, database: Any, stack: ExitStack) -> None:
        self._folder = folder
        self._database = database
        self._stack = stack
        self._opened: dict[str, Mapping[str, int]] = {}
        self._sound: set[tuple[str, str]] = set()
        self.rebuilt = 0
        """Parts that were made."""

    def update(self, logs: Sequence[Path], progress: Progress) -> list[Indexed]:
        """Bring the index up to date with the log's files, and return them, open, in the same order.

        Raises:
            OSError: if a file can't be read or written.
        """
        with self._locked() as seen_ns:
            before = manifest.read(self._folder, duckdb.__version__)
            known: dict[tuple[int, int], list[Part]] = {}
            for part in before:
                known.setdefault((part.state.device, part.state.inode), []).append(part)
            parts, found = [], []
            for path in logs:
                file = self._open(path)
                state = State.of(file)
                of_file = known.pop((state.device, state.inode), [])
                of_file = self._brought_up_to_date(path, file, state, of_file, seen_ns, progress)
                parts += of_file
                found.append(Indexed(path=path, file=file, parts=of_file, size=state.size))
            # the files of another question, unless they were deleted
            parts += [part for of_file in known.values() for part in of_file if Path(part.log).exists()]
            if parts != before:
                manifest.write(self._folder, duckdb.__version__, parts)
            self._remove_others({part.name for part in parts})
            copied, known_copied = ([part for part in some if not part.is_small] for some in (parts, before))
            if [(part.name, part.sheets) for part in copied] != [
                (part.name, part.sheets) for part in known_copied
            ]:
                copies.remove_others(self._folder, copied)
            self._remove_left(seen_ns)
        return found

    def _brought_up_to_date(
        self, path: Path, file: int, state: State, parts: list[Part], seen_ns: int, progress: Progress
    ) -> list[Part]:
        """Return the parts of a file: those that are what the file says now, and one of what comes after them."""
        is_complete = manifest.is_complete(path)
        good: list[Part] = []
        for part in parts:
            if part.begin != (good[-1].end if good else 0) or not self._is_good(part, file, state):
                break
            good.append(part)
            progress(part.end - part.begin)
        begin = good[-1].end if good else 0
        has_small = bool(good) and good[-1].is_small
        if state.size - begin > (0 if is_complete else _LONGEST_TAIL) or (is_complete and has_small):
            if has_small:
                begin = good.pop().begin
            good += self._made(file, begin, state, progress, name=path.stem, is_complete=is_complete)
        small = [good.pop()] if good and good[-1].is_small else []
        first = len(good) - 1
        while first > 0 and (
            is_complete
            or (len(good) > _MOST_PARTS and _size(good[first - 1]) < 2 * (good[-1].end - good[first].begin))
        ):
            first -= 1
        if first < len(good) - 1:
            good[first:] = self._merged(file, good[first:], name=path.stem)
        log = str(path.absolute())
        return [
            msgspec.structs.replace(part, log=log, state=state, seen_ns=seen_ns) for part in (*good, *small)
        ]

    def file(self, part: Part, sheet: str) -> int:
        """Return the open file of a sheet. Another question may remove its name meanwhile."""
        return self._opened[part.name][sheet]

    def check(self, parts: Iterable[Part], sheet: str) -> None:
        """Check a sheet of several parts for `is_sound`, on two processors."""
        unknown = [part for part in parts if (part.name, sheet) not in self._sound]

        def compare(some: Sequence[Part]) -> None:
            for part in some:
                with suppress(OSError):
                    if manifest.sha256_of(self.file(part, sheet)) == part.sheets[sheet]:
                        self._sound.add((part.name, sheet))

        other = Thread(target=compare, args=(unknown[1::2],))
        other.start()
        compare(unknown[::2])
        other.join()

    def is_sound(self, part: Part, sheet: str) -> bool:
        """Tell whether a sheet of a part is as it was made. One that is not is removed, and the next question makes it.

        The parts of `update` have all their files, but only their sheets that a question needs are read.
        """
        if (part.name, sheet) not in self._sound:
            self.check([part], sheet)
        is_sound = (part.name, sheet) in self._sound
        if not is_sound:
            part.path(self._folder, sheet).unlink(missing_ok=True)
        return is_sound

    def _is_good(self, part: Part, file: int, state: State) -> bool:
        """Tell whether a part has its files, and the log's bytes are those that it was made from."""
        if part.sheets.keys() not in (SHEETS.keys(), {ALL}):
            return False
        try:
            opened = {sheet: self._open(part.path(self._folder, sheet)) for sheet in part.sheets}
        except OSError:
            return False
        self._opened[part.name] = opened
        was = part.state
        if state == was and max(was.modified_ns, was.changed_ns) + _RECENT_NS < part.seen_ns:
            return True
        return (
            part.end <= state.size and manifest.sha256_of_range(file, part.begin, part.end) == part.log_sha256
        )

    def _made(
        self, file: int, begin: int, state: State, progress: Progress, *, name: str, is_complete: bool
    ) -> list[Part]:
        """Read a file of the log from a place on, and write a part of it; none if no line is finished."""
        is_small = not is_complete and state.size - begin <= _LONGEST_SMALL
        rows = self._folder / ".rows.json"
        kept: list[Row] | None = [] if is_small else None
        try:
            end, log_sha256 = write_rows(
                file, begin, state.size, rows, to_end=is_complete, kept=kept, progress=progress
            )
            if end == begin:
                return []
            if kept is not None:
                source, summary = f"({selected(rows)})", summary_of_rows(kept)
            else:
                load(self._database, "made", rows, order=_ORDER)
                source, summary = "made", summary_of(self._database, "made")
            return [
                self._written(_part(state, begin, end, log_sha256, name, summary), source, is_small=is_small)
            ]
        finally:
            rows.unlink(missing_ok=True)  # of a full disk too, which the log is on

    def _merged(self, file: int, parts: list[Part], *, name: str) -> list[Part]:
        """Write the rows of several parts as one."""
        begin, end, digest = parts[0].begin, parts[-1].end, hashlib.sha256()
        for part in parts:
            of_part = hashlib.sha256()
            for block in manifest.blocks(file, part.begin, part.end):
                digest.update(block)
                of_part.update(block)
            if (
                of_part.hexdigest() != part.log_sha256
            ):  # it was changed just now; the next question looks again
                return parts
        if not all(self.is_sound(part, sheet) for part in parts for sheet in _WHOLE):
            return parts
        rows = " UNION ALL BY NAME ".join(
            whole(sheet, f"SELECT * FROM {sources(self._opened[part.name][sheet] for part in parts)}")
            for sheet in _WHOLE
        )
        self._database.execute(
            f"CREATE OR REPLACE TEMP TABLE made AS SELECT * FROM ({rows}) ORDER BY {_ORDER}"
        )
        summary = summary_of(self._database, "made")
        return [self._written(_part(parts[0].state, begin, end, digest.hexdigest(), name, summary), "made")]

    def _written(self, part: Part, source: str, *, is_small: bool = False) -> Part:
        """Write the rows of a table, which is dropped then, or of a query as a small part."""
        self.rebuilt += 1
        sheets, compression = (_SMALL, "uncompressed") if is_small else (SHEETS, "zstd")
        opened = {}
        for sheet, query in sheets.items():
            path = part.path(self._folder, sheet)
            aside = path.with_name(f".{path.name}.new")
            self._database.execute(
                f"COPY ({query.format(rows=source)}{_ORDERS.get(sheet, '')}) TO {quoted(aside)} "
                f"(FORMAT parquet, COMPRESSION {compression}, ROW_GROUP_SIZE {_GROUP})"
            )
            with aside.open("rb+") as written:
                os.fsync(written.fileno())
            opened[sheet] = self._open(aside)
            part.sheets[sheet] = manifest.sha256_of(opened[sheet])
            aside.replace(path)
            self._sound.add((part.name, sheet))
        if not is_small:
            self._database.execute(f"DROP TABLE {source}")
        self._opened[part.name] = opened
        return part

    def _open(self, path: Path) -> int:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, file)
        return file

    def _remove_others(self, names: set[str]) -> None:
        """Remove the files of other parts, also those of other releases, and what killed questions left of theirs."""
        kept = {f"{name}.{sheet}.parquet" for name in names for sheet in (*SHEETS, ALL)}
        for path in self._folder.iterdir():
            if path.name.endswith((".parquet", ".parquet.new")) and path.name not in kept:
                path.unlink(missing_ok=True)

    def _remove_left(self, now_ns: int) -> None:
        """Remove the temporary folders and files of questions that were killed."""
        for path in (*self._folder.glob(".*-*"), *self._folder.glob(".*.new")):
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime_ns >= now_ns - _LEFT_NS:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Be the only one who changes the index. Yield the time of the file system's clock."""
        lock = os.open(self._folder / manifest.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.utime(lock)
            yield os.fstat(lock).st_mtime_ns
        finally:
            os.close(lock)


def batches(file: int, start: int, end: int, *, to_end: bool) -> Iterator[list[bytes]]:
    """Yield the lines of a file between two places, some at a time. The last one is left out if it has no newline.

    `to_end`: it is not left out, because nobody will finish it.
    """
    rest = b""
    while start < end and (data := os.pread(file, min(_CHUNK, end - start), start)):
        start += len(data)
        lines = BytesIO(rest + data).readlines()
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        if lines:
            yield lines
    if rest and to_end:
        yield [rest]


def write_rows(
    file: int,
    begin: int,
    end: int,
    rows: Path,
    *,
    to_end: bool,
    kept: list[Row] | None = None,
    progress: Progress = lambda _done: None,
) -> tuple[int, str]:
    """Write the rows of a range of a file of the log to `rows`, which `kept` gets too. For `to_end` see `batches`.

    Return where its last line ends, and the SHA-256 of the lines.
    """
    digest = hashlib.sha256()
    with rows.open("wb") as sink:
        for lines in batches(file, begin, end, to_end=to_end):
            found, data = list(rows_of(lines, begin)), b"".join(lines)
            if kept is not None:
                kept += found
            sink.write(encode_rows(found))
            digest.update(data)
            begin += len(data)
            progress(len(data))
    return begin, digest.hexdigest()


def load(database: Any, table: str, rows: Path, *, order: str = "") -> None:
    """Make a table of the rows in a file."""
    query = f"{selected(rows)} ORDER BY {order}" if order else selected(rows)
    database.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query}")


def selected(rows: Path) -> str:
    """Return the query for the rows in a file, with all columns."""
    columns = ", ".join(f"'{SHORT[name]}': '{kind}'" for name, kind in COLUMNS.items())
    values = ", ".join(f'coalesce("{SHORT[name]}", {value}) AS "{name}"' for name, value in DEFAULTS.items())
    derived = ", ".join(f"{value} AS {name}" for name, (_, value) in DERIVED.items())
    return (
        f"SELECT *, {derived} FROM (SELECT {values} FROM "
        f"read_json({quoted(rows)}, format='newline_delimited', columns={{{columns}}}, maximum_object_size={_MAX_ROW}))"
    )


def summary_of(database: Any, table: str) -> Summary:
    """Sum up the rows of a table."""
    found = database.execute(
        f"""
        SELECT bad, writer, action, endpoint, count(*), min(start), min(moment), max(moment), max(seq),
            count(*) FILTER (lost != 0 OR cut != 0)
        FROM {table} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
    ).fetchall()
    return _summary(found)


def summary_of_rows(rows: Iterable[Row]) -> Summary:
    """Sum up some rows, faster than DuckDB begins to."""
    return _summary(
        [
            (
                *(row.bad, row.writer, row.action, row.endpoint, 1, row.start),
                *(row.moment, row.moment, row.seq, row.lost != 0 or row.cut != 0),
            )
            for row in rows
        ]
    )


def _summary(found: Sequence[tuple[Any, ...]]) -> Summary:
    """Sum up groups of rows of the same kind, as the query of `summary_of` has them."""
    records = [row for row in found if not row[0]]
    seqs: dict[str, int] = {}
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for _, writer, action, endpoint, count, start, *_, seq, _ in records:
        seqs[writer] = max(seq, seqs.get(writer, seq))
        before, first = counts.get((action, endpoint), (0, start))
        counts[action, endpoint] = before + count, min(start, first)
    return Summary(
        records=sum(row[4] for row in records),
        bad=sum(row[4] for row in found if row[0]),
        earliest=min((row[6] for row in records), default=""),
        latest=max((row[7] for row in records), default=""),
        seqs=seqs,
        lacking=sum(row[9] for row in records),
        counts=[(*kind, *of_kind) for kind, of_kind in counts.items()]
        if len(counts) <= _MOST_COUNTS
        else None,
    )


def sources(files: Iterable[int]) -> str:
    """Return open files of parts as a table of SQL, with the virtual column `file_index`."""
    paths = ", ".join(f"'/proc/self/fd/{file}'" for file in files)
    return f"read_parquet([{paths}])"


def quoted(path: Path) -> str:
    """Return a path as SQL has it."""
    return text_of(str(path))


def _part(state: State, begin: int, end: int, log_sha256: str, name: str, summary: Summary) -> Part:
    """Return a part whose files are to be written."""
    return Part(
        log="",
        state=state,
        seen_ns=0,
        begin=begin,
        end=end,
        log_sha256=log_sha256,
        name=f"{name}.{state.inode:x}.{begin:x}-{end:x}",
        sheets={},
        summary=summary,
    )


def _size(part: Part) -> int:
    return part.end - part.begin
