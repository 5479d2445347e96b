"""What the queries read: the log's files, and the span of time that they are asked about."""

import errno
import functools
import gc
import inspect
import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from relay.audit.files import chains
from relay.audit.index.manifest import folder_of, read_verified
from relay.audit.query.killed import ends_of_killed
from relay.audit.query.records import Record, RecordReader, iso
from relay.cli.audit.times import LocalOption, SinceOption, UntilOption, ended, is_future, parse_span, shown
from relay.cli.options import ConfigOption, config_path
from relay.cli.output import printable
from relay.core.errors import ConfigurationError, RelayError
from relay.core.quantities import counted
from relay.net.sockets import open_files
from relay.settings.audit_log import LEAST_MEMORY_MB, MEMORY_MB, MOST_MEMORY_MB, AuditLog, audit_log

if TYPE_CHECKING:
    from relay.audit.index.database import Index

FilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A file of the log; repeat it for several, in any order. Default: all files that the settings name.",
    ),
]
_SHOW_AFTER_S = 1.0
"""Seconds after which a progress bar shows that the index is being made."""
NO_DUCKDB = "Questions to the audit log need DuckDB: pip install 'scoped-relay[audit]'. Without it, relay audit verify "
NO_DUCKDB += "and relay audit tail work."

P = ParamSpec("P")


class Log:
    """The files of a log, and the span of time that is read of them."""

    def __init__(
        self,
        *,
        file: FilesOption = None,
        config: ConfigOption = None,
        since: SinceOption = "",
        until: UntilOption = "",
        local: LocalOption = False,
    ) -> None:
        self.local = local
        self.config = config_path(config)
        """The settings file, if there is one."""
        settings = None if file else _configured(self.config)
        self._path = None if settings is None else settings.path
        self._memory_mb = MEMORY_MB if settings is None else settings.memory_mb
        self.chains = _named_chains(file or ()) if settings is None else chains(settings.path)
        """The files of each chain, in the order of their records; the last one may be written."""
        self.opened = datetime.now(UTC)
        self._killed = [] if settings is None else ends_of_killed(self.chains, at=iso(self.opened))
        self._stack = ExitStack()
        self._index: Index | None = None
        for path in self.files:
            if not path.exists():
                raise ConfigurationError(
                    f"{printable(str(path))}: there is no such audit log. Name the settings with --config, or the log "
                    "with --file."
                )
            if path.is_dir():
                raise ConfigurationError(
                    f"{printable(str(path))} is a folder. Name the files of the audit log in it, each with --file."
                )
        begin, end = parse_span(since, until, local=local)
        self.reader = RecordReader(since=begin, until=end)
        self.asked = self.reader.span
        """The time that the question is about. What is open then has earlier records too."""

    @property
    def named(self) -> list[Path]:
        """The files, if no settings name them."""
        return [] if self.config is not None and self._path is not None else self.files

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def files(self) -> list[Path]:
        """All files of the log."""
        return [path for chain in self.chains for path in chain]

    def shown(self, at: str) -> str:
        """Return a time as tables show it."""
        return shown(at, local=self.local)

    def shown_life(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row of a connection with its begin and end as tables show them."""
        until = ended(row["until"], killed=row["killed"], local=self.local)
        return row | {"since": self.shown(row["since"]), "until": until}

    def to_the_end(self, records: Iterable[Record]) -> Iterator[Record]:
        """Return records, and after them the ends of the relays that were killed and that none has followed."""
        yield from records
        yield from self._killed

    @property
    def newest(self) -> list[Path]:
        """The newest file of each chain."""
        return [chain[-1] for chain in self.chains]

    def newest_of_others(self, known: Container[Path]) -> list[Path]:
        """Return the newest files of chains that are not known: processes that started since."""
        if self._path is None:
            return []
        return [chain[-1] for chain in chains(self._path) if chain[-1] not in known and chain[-1].exists()]

    @property
    def index(self) -> "Index":
        """The index of the log, brought up to date when it is used first.

        Raises:
            ConfigurationError: if DuckDB is not installed, or others can write into the index.
            RelayError: if the log can't be read, or the index can be written nowhere.
        """
        if self._index is None:
            try:
                from relay.audit.index.database import Index
            except ModuleNotFoundError:
                raise ConfigurationError(NO_DUCKDB) from None
            folder = self._writable(folder_of(self.newest[-1]))
            try:
                with reading(self.size) as progress:
                    index = Index(
                        folder,
                        self.files,
                        chains=len(self.chains),
                        memory_mb=self._memory_mb,
                        span=self.reader.span,
                        killed={one.relay.chain.writer: one.at for one in self._killed},
                        progress=progress,
                    )
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise RelayError(
                        f"The disk of {printable(str(folder))} is full: the index needs about a tenth of the log's "
                        "size, and more while it is made. Make room, or ask a copy of the log on another disk: --file."
                    ) from None
                if error.errno == errno.EMFILE:
                    from relay.audit.index.sheets import SHEETS

                    raise RelayError(
                        f"The log has {counted(len(self.files), 'file')}, and its index {len(SHEETS)} for each; "
                        f"a process may have {open_files():,} open here. Raise that (ulimit -Hn), or name some of the "
                        "files with --file."
                    ) from None
                raise RelayError(
                    f"The audit log can't be read, or its index not written: {printable(str(error))}."
                ) from None
            self._index = self._stack.enter_context(index)
        return self._index

    def _writable(self, folder: Path) -> Path:
        """Return the folder of the index; or a temporary one if this user can't write next to the log."""
        if os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
            return folder
        sys.stderr.write(
            f"{printable(str(folder))} can't be written, so the whole log is read for this answer alone.\n"
        )
        from tempfile import TemporaryDirectory

        return Path(self._stack.enter_context(TemporaryDirectory(prefix="relay-audit-"))) / folder.name

    def close(self) -> None:
        """Close the index."""
        self._index = None
        self._stack.close()

    def report(self, *, is_answered: bool) -> None:
        """Say on standard error what an answer may lack and, if there is one, up to where it knows the log."""
        if self._index is None:
            return
        from relay.audit.index.questions import missing

        lacking = missing(self._index)
        if lacking.lost:
            sys.stderr.write(
                f"{counted(lacking.lost, 'event')} of this time could not be recorded; see relay audit stats.\n"
            )
        if lacking.cut:
            sys.stderr.write(
                f"{counted(lacking.cut, 'byte')} of this time were cut off the log; see relay audit verify.\n"
            )
        if lacking.unreadable:
            sys.stderr.write(
                f"{counted(lacking.unreadable, 'line')} passed over, because no record is there; see relay audit "
                "verify.\n"
            )
        if lacking.absent:
            sys.stderr.write(
                f"In the middle of the log, {counted(lacking.absent, 'record is', many='records are')} missing, as if "
                "lines or a file were removed; see relay audit verify.\n"
            )
        first, last = self.asked
        # a question about now means a moment after the log was opened
        is_about_now = first <= iso(datetime.now(UTC)) and (last is None or last >= iso(self.opened))
        killed = lacking.killed + (len(self._killed) if is_about_now else 0)
        if killed and is_answered:
            often = "once" if killed == 1 else counted(killed, "time")
            sys.stderr.write(
                f"In this time, a relay ended {often} without closing the log. Missing may "
                "be records of its last quarter second, publications of its last minute, and what its connections "
                "were sent in ten minutes.\n"
            )
        if is_answered:
            sys.stderr.write(f"{self._beginning(self._index)}{self._known(self._index)}\n")

    def nothing(self, sentence: str) -> str:
        """Return the sentence for an empty answer: an empty log, or one of another time, does not say "nobody"."""
        begin, _, is_outside = self._extent(self.index)
        if not begin:
            return "The log has no records."
        return "The log has no record of this time." if is_outside else sentence

    def _extent(self, index: "Index") -> tuple[str, str, bool]:
        """Return the times of the first and the last record, and whether the time of the question is outside."""
        known = index.known()
        begin, end, until = known.begins, known.at, self.asked[1]
        return begin, end, index.span[0] > end or (until is not None and until < begin)

    def _beginning(self, index: "Index") -> str:
        """Return the sentence about a span of time that the log does not have, or not from its begin on."""
        begin, end, is_outside = self._extent(index)
        since, _ = self.asked
        if begin and is_outside:
            return (
                f"The log has no record of this time: it is from {self.shown(begin)} to {self.shown(end)}.\n"
            )
        if is_future(since):
            return "That time is in the future: the answer is what the log says now.\n"
        if begin and "" < since < begin:
            return f"The log begins only at {self.shown(begin)}.\n"
        return ""

    def _known(self, index: "Index") -> str:
        """Return the sentence about what the answer knows, and when the log was verified."""
        known = index.known()
        if not known.records:
            return "The log has no records."
        upto = f"record {next(iter(known.last.values()), known.records)}"
        if len(known.last) > 1:
            upto = f"{known.records:,} records of {len(known.last)} chains, up to the one"
        unfinished = ", and a line that is being written" if known.unfinished else ""
        verified = read_verified(index.folder)
        proof = (
            f"Last verified {self.shown(verified.at)}: {verified.verdict.removesuffix('.')}."
            if verified
            else "When it was verified is not known here: relay audit verify."
        )
        return printable(f"Known up to {upto} of {self.shown(known.at)}{unfinished}. {proof}")


def query(command: Callable[Concatenate[Log, P], None]) -> Callable[..., None]:
    """Give a command the options that name a log and a span of time, and pass the `Log` as its first argument.

    After the answer, the command says what the log could not record.
    """
    shared = inspect.signature(Log).parameters

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        with reported(Log(**{name: options.pop(name) for name in shared})) as log:
            command(log, *args, **options)

    _, *own = inspect.signature(command).parameters.values()
    parameters = [*own, *shared.values()]
    # Typer reads both the signature and the annotations
    wrapped.__dict__["__signature__"] = inspect.Signature(parameters)
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


@contextmanager
def reported(log: Log) -> Iterator[Log]:
    """Say after the answer what it may lack, and close the log."""
    is_answered = False
    gc.disable()  # an answer has many objects and no cycles
    try:
        yield log
        is_answered = True
    finally:
        try:
            log.report(is_answered=is_answered)
        finally:
            log.close()
            gc.enable()


@contextmanager
def reading(total: int) -> Iterator[Callable[[int], None]]:
    """Show the bytes that are in the index, on a terminal, if it takes longer than a second."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task("Indexing", total=total)
    starter = Timer(_SHOW_AFTER_S, progress.start)  # a first step may take longer than that
    starter.start()
    try:
        yield lambda done: progress.update(task, advance=done)
    finally:
        starter.cancel()
        starter.join()
        progress.stop()


def _configured(path: Path | None) -> AuditLog:
    """Return the settings of the log. Without a file: the default ones, and what variables say of it.

    Raises:
        ConfigurationError: if there are settings with mistakes in them.
    """
    found = audit_log(path, os.environ)
    if found is not None:
        return found
    from relay.settings.load import load

    if path is not None:
        audit = load(path).audit
        return AuditLog(path=audit.path, memory_mb=audit.index_memory_mb)
    raise ConfigurationError(
        "RELAY_AUDIT: of the variables of the audit log, set RELAY_AUDIT__PATH and, as a number of MB from "
        f"{LEAST_MEMORY_MB} to {MOST_MEMORY_MB}, RELAY_AUDIT__INDEX_MEMORY_MB."
    )


def _named_chains(files: Sequence[Path]) -> list[list[Path]]:
    """Return files in any order as chains: those of one writer belong together, in the order of their times.

    A file that can't be read is reported when it is read.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for path in files:
        record = None
        with suppress(OSError), path.open("rb") as file:
            record = next(RecordReader().records([file.readline()]), None)
        at, writer = ("", "") if record is None else (record.at, record.relay.chain.writer)
        found.setdefault(writer or str(path), []).append((at, path))
    return [[path for _, path in sorted(chain, key=itemgetter(0))] for chain in found.values()]
