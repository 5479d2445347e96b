"""`relay audit tail`: the log as it grows."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from relay.audit.merge import merged
from relay.audit.query.explain import explain
from relay.audit.query.records import Record
from relay.cli.audit.input import NO_DUCKDB, FilesOption, Log
from relay.cli.audit.known_names import unknown
from relay.cli.audit.times import LocalOption, SinceOption, UntilOption
from relay.cli.options import ConfigOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError, RelayError
from relay.core.events import Action

LOOK_EVERY_S = 0.25
_STYLES = {"failure": "red", "success": "green"}


def tail(
    *,
    file: FilesOption = None,
    config: ConfigOption = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="Records of the existing log to show first.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show new records as they are written.")
    ] = True,
    action: Annotated[str, typer.Option("--action", help="Only this action, like connect.denied.")] = "",
    user: Annotated[str, typer.Option("--user", help="Only this user.")] = "",
    outcome: Annotated[str, typer.Option("--outcome", help="Only this outcome: success or failure.")] = "",
    since: SinceOption = "",
    until: UntilOption = "",
    local: LocalOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the log's own lines.")] = False,
) -> None:
    """Show the newest records, and each new one as it is written.

    A new file of the log is followed as well.
    """
    log = Log(file=file, config=config, since=since, until=until, local=local)
    _check(log, action=action, user="" if follow else user, outcome=outcome)

    def wanted(record: Record) -> bool:
        return (
            action in ("", record.event.action)
            and user in ("", record.user.id)
            and outcome in ("", record.event.outcome)
        )

    console = Console()

    def show(line: bytes, record: Record) -> None:
        if as_json:
            sys.stdout.write(_plain(line))
            sys.stdout.flush()
        else:
            console.print(_line(record, log.shown(record.at)), soft_wrap=True)

    newest: deque[tuple[bytes, Record]] = deque(maxlen=lines)
    is_old = True
    try:
        for line in _grow(log.newest, log.newest_of_others, follow=follow):
            if line is None:
                is_old = False
                for shown in newest:
                    show(*shown)
                continue
            for record in filter(wanted, log.reader.records([line])):
                if is_old:
                    newest.append((line, record))
                else:
                    show(line, record)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # standard output is closed: no error of the log
        raise
    except OSError as error:
        raise RelayError(f"{printable(str(error.filename))} can't be read: {error.strerror}.") from None


def _check(log: Log, *, action: str, user: str, outcome: str) -> None:
    """Refuse names that nothing can have: no record would be shown, which would look like an answer."""
    if action and action not in list(Action):
        raise ConfigurationError(unknown("an action", action, list(Action)))
    if outcome not in ("", "success", "failure"):
        raise ConfigurationError(f"--outcome: {outcome[:40]!r} is none. Give success or failure.")
    if user:
        if find_spec("duckdb") is None:
            sys.stderr.write(f"Whether the log knows {printable(user)} is not known: {NO_DUCKDB}\n")
            return
        index = log.index
        from relay.audit.index.questions import distinct

        users = distinct(index, "user_id")
        log.close()
        if user not in users:
            raise ConfigurationError(unknown("a user", user, users))


def _plain(line: bytes) -> str:
    """Return a line as it is if it is printable ASCII, as the relay writes it. Escape any other line."""
    text = line.decode("utf-8", "replace")
    if text.isascii() and text.rstrip("\n").isprintable():
        return text
    return json.dumps(json.loads(text)) + "\n"


def _line(record: Record, at: str) -> Text:
    anomalies = f"  [!] {', '.join(record.relay.anomalies)}" if record.relay.anomalies else ""
    return (
        Text(f"{printable(at)} ", style="dim")
        + Text(printable(record.event.action), style=_STYLES.get(record.event.outcome, ""))
        + Text(f" {printable(record.user.id or record.client.ip)}", style="bold")
        + Text(f" {printable(explain(record))}")
        + Text(printable(anomalies), style="bold red")
    )


def _grow(
    newest: Sequence[Path], appeared: Callable[[Container[Path]], Iterable[Path]], *, follow: bool
) -> Iterator[bytes | None]:
    """Return the lines of the chains' newest files, then None at their present end, and then each line written later.

    Lines of several chains are in the order of their times, as far as one look finds them. `appeared` names the files
    of chains that are not known yet, which are followed too.
    """
    growing = {path: _Growing(path) for path in newest}
    try:
        yield from merged([one.lines() for one in growing.values()])
        yield None
        while follow:
            for path in appeared(growing):
                growing[path] = _Growing(path)
            found = [one.new_lines() for one in growing.values()]
            yield from merged(found)
            if not any(found):
                time.sleep(LOOK_EVERY_S)
    finally:
        for one in growing.values():
            one.close()


class _Growing:
    """The newest file of a chain, while its writer writes. One that replaces it is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._part = b""
        """The beginning of a line that the writer has not finished."""

    def lines(self) -> Iterator[bytes]:
        """Read the lines that are finished now."""
        for line in self._file:
            if line.endswith(b"\n"):
                yield line
            else:
                self._part = line

    def new_lines(self) -> list[bytes]:
        """Return the lines that were finished since the last look."""
        lines = self._finished()
        if not lines and _replaced(self._file.fileno(), self._path):
            lines = self._finished()  # written after the last read and before the replacement
            self._file.close()
            self._file, self._part = self._path.open("rb"), b""
            lines += self._finished()
        return lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _finished(self) -> list[bytes]:
        *lines, self._part = (self._part + self._file.read()).split(b"\n")
        return [line + b"\n" for line in lines]


def _replaced(descriptor: int, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:  # for a moment, between two files of the log
        return False
    return (now.st_dev, now.st_ino) != (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino)
