"""Copies of what views need of the index: databases of DuckDB, which a process can read that may open no other file.

There is one for each kind of rows, with the columns that views need. It is made when the first query needs it. Parts
share their copies, because a query to hundreds of databases would take a minute to plan.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from relay.audit.index import manifest
from relay.audit.index.manifest import Part
from relay.audit.index.native import duckdb
from relay.audit.index.rows import COLUMNS
from relay.audit.index.sheets import viewed
from relay.core.events import Action

_DATABASE, _SUM = ".duckdb", ".sha256"
"""The ends of the names of a copy, and of the file with its sum and what it was made of."""
_LONG = 1 << 30
"""Bytes of complete files in a group of parts, from which on it has no more. A new file makes its group again."""
_LONG_WRITTEN = 32 << 20
"""The same for the parts of a file that is being written: each new part makes its group again."""
_MOST = 128
"""Parts of a group."""


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """Some columns of the rows of a sheet: of all of them, or of those of one action."""

    sheet: str
    columns: tuple[str, ...]
    action: str = ""

    @property
    def query(self) -> str:
        """The query that makes it of the sheet's rows with all columns. Times are read faster than their texts."""
        columns = ", ".join(
            "try_cast(moment AS TIMESTAMP) AS moment" if name == "moment" else f'"{name}"'
            for name in self.columns
        )
        where = f" WHERE action = '{self.action}'" if self.action else ""
        return f"SELECT file::UTINYINT AS file, {columns} FROM {{rows}}{where}"

    def read(self, table: str, files: Sequence[int]) -> str:
        """Return the query that reads a copy, with the numbers of its files and what is the same in all its rows."""
        action = f", '{self.action}' AS action" if self.action else ""
        return viewed(self.sheet, f"SELECT * REPLACE ({list(files)}[file + 1] AS file){action} FROM {table}")


_KEYS = ("jti_key", "connection_key")

COPIES: Mapping[str, Copy] = {
    "rare": Copy(sheet="rare", columns=(*COLUMNS, *_KEYS)),
    "issued": Copy(
        sheet="usual",
        action=Action.TOKEN_ISSUED,
        columns=(
            *(
                "start",
                "moment",
                "user_id",
                "session",
                "roles",
                "jti",
                "jti_key",
                "endpoint",
                "scope",
                "asked",
            ),
            *("granted", "expires", "address", "origin", "user_agent"),
        ),
    ),
    "accepted": Copy(
        sheet="usual",
        action=Action.CONNECT_ACCEPTED,
        columns=(
            *("start", "moment", "user_id", "jti", *_KEYS, "connection", "endpoint", "address", "user_agent"),
            *("transport", "channels", "writer"),
        ),
    ),
    "refreshed": Copy(
        sheet="usual",
        action=Action.CONNECTION_REFRESHED,
        columns=("start", "moment", *_KEYS, "connection"),
    ),
    "subscribed": Copy(
        sheet="usual",
        action=Action.SUBSCRIBE_ACCEPTED,
        columns=("start", "moment", "connection_key", "channels"),
    ),
    "closed": Copy(
        sheet="usual",
        action=Action.CONNECTION_CLOSED,
        columns=(
            *("start", "moment", "connection_key", "reason", "initiator", "close_code", "duration_ms"),
            *("messages_out", "used", "unused"),
        ),
    ),
    "of_sessions": Copy(sheet="usual", columns=("moment", "action", "session", "user_id")),
}
"""The copies, and what each has. A view names those that it needs."""


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """A database with copies of these names. Rows have the places in `files` of the numbers of the log's files."""

    path: Path
    files: tuple[int, ...]
    names: tuple[str, ...]


def groups(parts: Iterable[tuple[int, Part]]) -> list[list[tuple[int, Part]]]:
    """Return parts, each with the number of its file, in the groups that have their copies together.

    A group ends where it is long enough, or at a part with a certain sum. So it stays as it is when files come or go.
    """
    found: list[list[tuple[int, Part]]] = []
    is_open, was_complete, size = False, False, 0
    for number, part in parts:
        is_complete = manifest.is_complete(Path(part.log))
        if not is_open or is_complete != was_complete:
            found.append([])
            size = 0
        found[-1].append((number, part))
        size += part.end - part.begin
        longest = _LONG if is_complete else _LONG_WRITTEN
        is_open = size < longest and len(found[-1]) < _MOST and not part.log_sha256.startswith("0")
        was_complete = is_complete
    return found


def database_of(
    folder: Path, name: str, parts: Iterable[Part], write: Callable[[Path], None], *, aside: Path
) -> Path:
    """Return a copy of a group of parts, by a name in `aside`: another question may remove it from the index's folder.

    It is made once, and again if its bytes changed.

    Raises:
        OSError: if it can't be written.
    """
    made_of = _made_of(name, parts)
    kept = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.{name}{_DATABASE}"
    sum_, path = kept.with_suffix(_SUM), aside / kept.name
    with suppress(OSError, ValueError):
        os.link(kept, path)
        if sum_.read_text("utf-8") == f"{made_of}{_sha256_of(path)}\n":
            return path
    path.unlink(missing_ok=True)
    write(path)
    with path.open("rb+") as written:
        os.fsync(written.fileno())
    made = _sha256_of(path)
    with manifest.replacing(sum_) as file:  # first: a copy without it is removed by other questions
        file.write(f"{made_of}{made}\n".encode())
    new = folder / f".{kept.name}.{os.getpid()}.new"
    new.unlink(missing_ok=True)
    try:
        os.link(path, new)
    except OSError:  # network file systems may have no links; each question then makes its copy
        shutil.copyfile(path, new)
    new.replace(kept)
    _remove_shorter(folder, name, made_of)
    return path


def _remove_shorter(folder: Path, name: str, made_of: str) -> None:
    """Remove the copies of a group from before it had its last parts: groups grow at their end."""
    for sum_ in folder.glob(f"*.{name}{_SUM}"):
        with suppress(OSError, ValueError):
            of = "".join(sum_.read_text("utf-8").splitlines(keepends=True)[:-1])
            if of and of != made_of and made_of.startswith(of):
                _remove(sum_)


def _remove(sum_: Path) -> None:
    sum_.with_suffix(_DATABASE).unlink(missing_ok=True)
    sum_.unlink(missing_ok=True)


def remove_others(folder: Path, parts: Iterable[Part]) -> None:
    """Remove the copies of other parts, and those that another release made."""
    known = {line for name in COPIES for line in _made_of(name, parts).splitlines()}
    for sum_ in {path.with_suffix(_SUM) for end in (_DATABASE, _SUM) for path in folder.glob(f"*{end}")}:
        made_of: list[str] = []
        with suppress(OSError, ValueError):
            made_of = sum_.read_text("utf-8").splitlines()[:-1]
        if not made_of or not known.issuperset(made_of):
            _remove(sum_)


def _made_of(name: str, parts: Iterable[Part]) -> str:
    """Return what a copy is made of, in lines: the query, and the sum of the sheet of each part."""
    copy = COPIES[name]
    query = hashlib.sha256(copy.query.encode()).hexdigest()
    lines = [
        f"{name} {query} {duckdb.__version__}",
        *(f"{part.name} {part.sheets[copy.sheet]}" for part in parts),
    ]
    return "".join(f"{line}\n" for line in lines)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return manifest.sha256_of(file.fileno())
