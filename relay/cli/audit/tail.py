"""`relay audit tail`: the log as it grows."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from relay.audit.query.explain import explain
from relay.audit.query.records import Record
from relay.cli.audit.input import FilesOption, Log
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
        for line in _grow(log.newest, follow=follow):
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
        raise RelayError(f"{printable(str(log.newest))} can't be read: {error.strerror}.") from None


def _check(log: Log, *, action: str, user: str, outcome: str) -> None:
    """Refuse names that nothing can have: no record would be shown, which would look like an answer."""
    if action and action not in list(Action):
        raise ConfigurationError(unknown("an action", action, list(Action)))
    if outcome not in ("", "success", "failure"):
        raise ConfigurationError(f"--outcome: {outcome[:40]!r} is none. Give success or failure.")
    if user:
        users = {record.user.id for record in log.reader.records(log.lines())} - {""}
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


def _grow(path: Path, *, follow: bool) -> Iterator[bytes | None]:
    """Return a file's lines, then None at its present end, and then each line that is written later.

    A file that replaces it is read from its beginning.
    """
    file = path.open("rb")
    try:
        part = b""
        for line in file:
            if line.endswith(b"\n"):
                yield line
            else:
                part = line  # the writer has not finished it
        yield None
        while follow:
            part += file.readline()
            if part.endswith(b"\n"):
                yield part
                part = b""
            elif _replaced(file.fileno(), path):
                # lines that were written after the last read and before the replacement
                yield from (
                    line for line in (part + file.read()).splitlines(keepends=True) if line.endswith(b"\n")
                )
                file.close()
                file, part = path.open("rb"), b""
            else:
                time.sleep(LOOK_EVERY_S)
    finally:
        file.close()


def _replaced(descriptor: int, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:  # for a moment, between two files of the log
        return False
    return (now.st_dev, now.st_ino) != (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino)
