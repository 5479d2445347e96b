"""What the queries read: the log's files, and the span of time that they are asked about."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from relay.audit.files import log_files
from relay.audit.query.records import RecordReader
from relay.cli.audit.times import LocalOption, SinceOption, UntilOption, parse_time, shown
from relay.cli.options import ConfigOption, config_path
from relay.cli.output import printable
from relay.core.errors import ConfigurationError, RelayError

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
        self._files = _in_order(file) if file else log_files(_configured(config))
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
    def newest(self) -> Path:
        """The file that is being written."""
        return self._files[-1]

    def shown(self, at: str) -> str:
        """Return a time as tables show it."""
        return shown(at, local=self.local)

    def lines(self) -> Iterator[bytes]:
        """Read all lines, oldest first, with a progress bar on a terminal."""
        try:
            if sys.stderr.isatty():
                yield from self._lines_with_progress()
                return
            for path in self._files:
                with path.open("rb") as file:
                    yield from file
        except OSError as error:
            raise RelayError(f"{printable(str(error.filename))} can't be read: {error.strerror}.") from None

    def report_missing(self) -> None:
        """Say on standard error what the answer may lack: events that were lost, and lines that are no records."""
        if self.reader.lost:
            sys.stderr.write(
                f"{_count(self.reader.lost, 'event')} of this time could not be recorded; see relay audit stats.\n"
            )
        if self.reader.unreadable:
            sys.stderr.write(
                f"{_count(self.reader.unreadable, 'line')} passed over, because no record is there; see relay audit "
                "verify.\n"
            )

    def _lines_with_progress(self) -> Iterator[bytes]:
        from rich.console import Console
        from rich.progress import Progress

        total = sum(path.stat().st_size for path in self._files)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Reading", total=total)
            done = number = 0
            for path in self._files:
                with path.open("rb") as file:
                    for line in file:
                        number += 1
                        done += len(line)
                        if not number % _REPORT_EVERY:
                            progress.update(task, completed=done)
                        yield line


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
            log.report_missing()

    _, *own = inspect.signature(command).parameters.values()
    parameters = [*own, *shared.values()]
    # Typer reads both the signature and the annotations
    wrapped.__dict__["__signature__"] = inspect.Signature(parameters)
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def _configured(config: Path | None) -> Path:
    """Return where the settings keep the log, or where it is by default.

    Raises:
        ConfigurationError: if there are settings with mistakes in them.
    """
    path = config_path(config)
    if path is not None:
        from relay.settings.load import load

        return load(path).audit.path
    from relay.settings.sections import Audit

    return Path(os.environ.get("RELAY_AUDIT__PATH", Audit().path))


def _in_order(files: Sequence[Path]) -> list[Path]:
    """Return the files in the order of their first records' times: several relays number their records separately.

    A file that can't be read is reported when it is read.
    """

    def begins(path: Path) -> str:
        with suppress(OSError), path.open("rb") as file:
            return next((record.at for record in RecordReader().records([file.readline()])), "")
        return ""

    return sorted(files, key=begins)
