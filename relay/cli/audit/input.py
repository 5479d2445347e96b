"""What the queries read: the log's files, and the span of time that they are asked about."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from relay.audit.files import chains
from relay.audit.index.manifest import folder_of
from relay.audit.merge import merged
from relay.audit.query.records import RecordReader
from relay.cli.audit.times import LocalOption, SinceOption, UntilOption, parse_time, shown
from relay.cli.options import ConfigOption, config_path
from relay.cli.output import printable
from relay.core.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from relay.audit.index.database import Index
    from relay.settings.sections import Audit

_REPORT_EVERY = 5000
"""Lines between two steps of the progress bar."""

FilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A file of the log; repeat it for several, in any order. Default: all files that the settings name.",
    ),
]
INDEX_FROM_BYTES = 8 << 20
"""A shorter log is read as fast as an index is opened: some 12,000 records, 0.1 s."""
_SHOW_FROM_BYTES = 64 << 20
"""Bytes that take about a second to be read into the index."""
MEMORY_MB = 512
"""Memory of the index, if no settings say how much."""
_NO_DUCKDB = "The whole log is read. With the extra of the audit log, answers take a tenth of the time: "
_NO_DUCKDB += "pip install 'scoped-relay[audit]'\n"

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
        self.index: Index | None = None
        """The index of the log, if the log is long and the index could be made. `open_index` makes it."""
        settings = None if file else _configured(config)
        self._path = None if settings is None else settings.path
        self._memory_mb = MEMORY_MB if settings is None else settings.index_memory_mb
        self.chains = _named_chains(file or ()) if settings is None else chains(settings.path)
        """The files of each chain, in the order of their records; the last one may be written."""
        for path in self._files:
            if not path.exists():
                raise ConfigurationError(
                    f"{printable(str(path))}: there is no such audit log. Name the settings with --config, or the log "
                    "with --file."
                )
        self.reader = RecordReader(
            since=parse_time(since, option="--since", local=local) if since else None,
            until=parse_time(until, option="--until", local=local) if until else None,
        )

    @property
    def _files(self) -> list[Path]:
        return [path for chain in self.chains for path in chain]

    def shown(self, at: str) -> str:
        """Return a time as tables show it."""
        return shown(at, local=self.local)

    def lines(self) -> Iterator[bytes]:
        """Read all lines of all chains, ordered by time, with a progress bar on a terminal."""
        try:
            lines = merged([_lines_of(chain) for chain in self.chains])
            yield from self._with_progress(lines) if sys.stderr.isatty() else lines
        except OSError as error:
            raise RelayError(f"{printable(str(error.filename))} can't be read: {error.strerror}.") from None

    @property
    def newest(self) -> list[Path]:
        """The newest file of each chain."""
        return [chain[-1] for chain in self.chains]

    def newest_of_others(self, known: Container[Path]) -> list[Path]:
        """Return the newest files of chains that are not known: processes that started since."""
        if self._path is None:
            return []
        return [chain[-1] for chain in chains(self._path) if chain[-1] not in known and chain[-1].exists()]

    def open_index(self) -> "Index | None":
        """Bring the index up to date, and return it. None: the log is short, or there is no DuckDB, or no place for it.

        Raises:
            ConfigurationError: if others can write into its folder.
        """
        # the index has its lines in the order of the files, which for several chains is not that of the times
        if self.index is None and len(self.chains) == 1 and self._is_long:
            try:
                from relay.audit.index.database import Index
            except ModuleNotFoundError:
                sys.stderr.write(_NO_DUCKDB)
                return None
            folder = folder_of(self.chains[0][-1])
            try:
                with _reading(sum(path.stat().st_size for path in self._files)) as progress:
                    self.index = Index(folder, self._files, memory_mb=self._memory_mb, progress=progress)
            except OSError as error:
                sys.stderr.write(
                    f"Without an index, because of {printable(str(error))}: the whole log is read.\n"
                )
        return self.index

    @property
    def _is_long(self) -> bool:
        """Whether an index is faster than the log itself."""
        with suppress(OSError):
            return sum(path.stat().st_size for path in self._files) >= INDEX_FROM_BYTES
        return False

    def close(self) -> None:
        """Close the index."""
        if self.index is not None:
            self.index.__exit__(None, None, None)
            self.index = None

    def report_missing(self) -> None:
        """Say on standard error what the answer may lack: events that were lost, and lines that are no records."""
        if self.index is not None:
            from relay.audit.index import questions

            self.reader.unreadable, self.reader.lost = questions.missing(self.index, self.reader)
        if self.reader.lost:
            sys.stderr.write(
                f"{_count(self.reader.lost, 'event')} of this time could not be recorded; see relay audit stats.\n"
            )
        if self.reader.unreadable:
            sys.stderr.write(
                f"{_count(self.reader.unreadable, 'line')} passed over, because no record is there; see relay audit "
                "verify.\n"
            )

    def _with_progress(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        from rich.console import Console
        from rich.progress import Progress

        total = sum(path.stat().st_size for path in self._files)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Reading", total=total)
            done = 0
            for number, line in enumerate(lines):
                done += len(line)
                if not number % _REPORT_EVERY:
                    progress.update(task, completed=done)
                yield line


def _lines_of(chain: Sequence[Path]) -> Iterator[bytes]:
    for path in chain:
        with path.open("rb") as file:
            yield from file


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def query(command: Callable[Concatenate[Log, P], None]) -> Callable[..., None]:
    """Give a command the options that name a log and a span of time, and pass the `Log` as its first argument.

    After the answer, the command says what the log could not record.
    """
    shared = inspect.signature(Log).parameters

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        log = Log(**{name: options.pop(name) for name in shared})
        try:
            command(log, *args, **options)
        finally:
            try:
                log.report_missing()
            finally:
                log.close()

    _, *own = inspect.signature(command).parameters.values()
    parameters = [*own, *shared.values()]
    # Typer reads both the signature and the annotations
    wrapped.__dict__["__signature__"] = inspect.Signature(parameters)
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


@contextmanager
def _reading(total: int) -> Iterator[Callable[[int], None]]:
    """Show the bytes that are read into the index, on a terminal, if there are many."""
    if not sys.stderr.isatty() or total < _SHOW_FROM_BYTES:
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Indexing", total=total)
        yield lambda done: progress.update(task, advance=done)


def _configured(config: Path | None) -> "Audit":
    """Return the settings of the log, or the default ones.

    Raises:
        ConfigurationError: if there are settings with mistakes in them.
    """
    path = config_path(config)
    if path is not None:
        from relay.settings.load import load

        return load(path).audit
    from relay.settings.sections import Audit

    default = Audit()
    return default.model_copy(update={"path": Path(os.environ.get("RELAY_AUDIT__PATH", default.path))})


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
