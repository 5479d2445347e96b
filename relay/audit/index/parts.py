"""The parts of an index: brought up to date, and checked before they are used.

A file that is complete has one part and is read once. The file that is being written has a part of its beginning, and
the tail after it is read at each question. The part grows with the file, so that the tail stays short.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from relay.audit.index import manifest
from relay.audit.index.manifest import Part, State
from relay.audit.index.rows import COLUMNS, DEFAULTS, rows_of

Progress = Callable[[int], None]
"""Gets the bytes of the log that came into the index, or were found there, since the last call."""

_COMPLETE = re.compile(r".*-[0-9]{12}\.[^.]*")
"""Names of files that the relay does not write to any more: see `relay.audit.files`."""
_LONGEST_TAIL = 8 << 20
"""Bytes of a tail that are read at each question, at least: some 12,000 records, 0.1 s."""
_TAIL_SHARE = 4
"""A tail of a larger part may be a quarter of it. The file is then read no more than five times while it grows."""
_RECENT_NS = 2_000_000_000
"""A file that was changed so shortly before it was looked at may have changed again without another time."""
_LEFT_NS = 86_400_000_000_000
"""Age of a temporary folder that no question uses any more."""
_CHUNK = 1 << 20
_MAX_ROW = 8 << 20
"""Bytes of a row, at most: the row of a forged line, with all texts and lists as long as they can be."""

encode_rows = msgspec.json.Encoder().encode_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A file of the log that is open, its part if it has one, and the bytes from which on its lines are the tail."""

    path: Path
    file: int
    part: Path | None
    part_sha256: str
    end: int
    size: int


class Parts:
    """The parts in a folder. `connect` opens a database with the index's limits."""

    def __init__(self, folder: Path, connect: Callable[[], Any]) -> None:
        self._folder = folder
        self._connect = connect
        self.rebuilt = 0
        """Parts that were made."""

    def update(self, logs: Sequence[Path], stack: ExitStack, progress: Progress) -> list[Indexed]:
        """Bring the index up to date with the log's files, and return them, open, in the same order.

        Raises:
            ConfigurationError: if others can write into the folder.
            OSError: if a file can't be read or written.
        """
        manifest.open_folder(self._folder)
        with self._locked() as seen_ns:
            before = manifest.read(self._folder)
            known = {(part.state.device, part.state.inode): part for part in before}
            parts, found = [], []
            for path in logs:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, file)
                state = State.of(file)
                part = known.pop((state.device, state.inode), None)
                part = self._brought_up_to_date(path, file, state, part, seen_ns, progress)
                if part is not None:
                    parts.append(part)
                found.append(
                    Indexed(
                        path=path,
                        file=file,
                        part=None if part is None else self._folder / part.name,
                        part_sha256="" if part is None else part.sha256,
                        end=0 if part is None else part.end,
                        size=state.size,
                    )
                )
            # the files of another question, unless they were deleted
            parts += [part for part in known.values() if Path(part.log).exists()]
            if parts != before:
                manifest.write(self._folder, parts)
            self._remove_others({part.name for part in parts})
            self._remove_left(seen_ns)
        return found

    def _brought_up_to_date(
        self, path: Path, file: int, state: State, part: Part | None, seen_ns: int, progress: Progress
    ) -> Part | None:
        """Return the part of a file, made again if it is not what the file says now. None: the file is all tail."""
        is_complete = _COMPLETE.fullmatch(path.name) is not None
        if part is not None and not self._is_good(part, file, state):
            part = None
        tail = state.size - (0 if part is None else part.end)
        longest = 0 if is_complete else max(_LONGEST_TAIL, (state.size - tail) // _TAIL_SHARE)
        if tail > longest:
            return self._made(path, file, state, seen_ns, progress, is_complete=is_complete)
        if part is None:
            return None
        progress(part.end)
        return msgspec.structs.replace(part, log=str(path.absolute()), state=state, seen_ns=seen_ns)

    def _is_good(self, part: Part, file: int, state: State) -> bool:
        """Tell whether a part is as it was made, and the log's bytes are those that it was made from."""
        try:
            if manifest.sha256_of(self._folder / part.name) != part.sha256:
                return False
        except OSError:
            return False
        was = part.state
        if state == was and max(was.modified_ns, was.changed_ns) + _RECENT_NS < part.seen_ns:
            return True
        return part.end <= state.size and manifest.sha256_of_beginning(file, part.end) == part.log_sha256

    def _made(
        self, path: Path, file: int, state: State, seen_ns: int, progress: Progress, *, is_complete: bool
    ) -> Part:
        """Read a file of the log and write its part."""
        self.rebuilt += 1
        name = f"{path.stem}.{state.inode:x}.parquet"
        rows = self._folder / ".rows.json"
        digest, end = hashlib.sha256(), 0
        with rows.open("wb") as sink:
            for lines in batches(file, 0, state.size, to_end=is_complete):
                data = b"".join(lines)
                digest.update(data)
                sink.write(encode_rows(rows_of(lines, end)))
                end += len(data)
                progress(len(data))
        aside = self._folder / f".{name}.new"
        with self._connect() as database:
            load(database, "made", rows)
            database.execute(f"COPY made TO {quoted(aside)} (FORMAT parquet, COMPRESSION zstd)")
        rows.unlink()
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        sha256 = manifest.sha256_of(aside)
        aside.replace(self._folder / name)
        return Part(
            log=str(path.absolute()),
            state=state,
            seen_ns=seen_ns,
            end=end,
            log_sha256=digest.hexdigest(),
            name=name,
            sha256=sha256,
        )

    def _remove_others(self, names: set[str]) -> None:
        for path in self._folder.glob("*.parquet*"):  # and the copies of parts
            if path.name.partition(".parquet")[0] + ".parquet" not in names:
                path.unlink(missing_ok=True)

    def _remove_left(self, now_ns: int) -> None:
        """Remove the temporary folders of questions that were killed."""
        for path in self._folder.glob(".*-*"):
            with suppress(FileNotFoundError):
                if path.is_dir() and path.lstat().st_mtime_ns < now_ns - _LEFT_NS:
                    shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Be the only one who changes the index. Yield the time of the file system's clock."""
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [line + b"\n" for line in lines]
    if rest and to_end:
        yield [rest]


def load(database: Any, table: str, rows: Path) -> None:
    """Make a table of the rows in a file."""
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
    values = ", ".join(f'coalesce("{name}", {value}) AS "{name}"' for name, value in DEFAULTS.items())
    database.execute(
        f"CREATE TEMP TABLE {table} AS SELECT {values} FROM read_json({quoted(rows)}, format='newline_delimited', "
        f"columns={{{columns}}}, maximum_object_size={_MAX_ROW})"
    )


def quoted(path: Path) -> str:
    """Return a path as SQL has it."""
    text = str(path).replace("'", "''")
    return f"'{text}'"
