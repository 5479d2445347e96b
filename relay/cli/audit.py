"""`relay audit`: proves that an audit log is whole, or says where it is not.

Nothing of the log's content is printed: who can write into a log must not be able to write to the terminal
of the person who checks it.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import Annotated, BinaryIO, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from relay.audit.chain import Link
from relay.audit.verdict import Verdict
from relay.audit.verify import read_lines, verify
from relay.core.errors import MalformedError

app = typer.Typer(no_args_is_help=True, help="Check the audit log.")

_REPORT_EVERY = 1000
"""Lines between two steps of the progress bar, which would otherwise cost more than the check."""


class Exit(IntEnum):
    """Exit codes of `relay audit verify`."""

    WHOLE = 0
    DAMAGED = 1
    UNREADABLE = 2


@app.callback()
def audit() -> None:
    """Check the audit log."""


@app.command("verify")
def verify_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The audit log.")],
    head: Annotated[
        str,
        typer.Option(
            metavar="WRITER:SEQ:HASH",
            help="The log's last known record, kept elsewhere. Proves that the end is not cut off.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as one JSON object.")] = False,
) -> None:
    """Name the first modified, deleted, inserted or reordered record of an audit log.

    Exit code 0: whole. 1: damaged. 2: the file could not be read.
    """
    name = str(file).encode("unicode_escape").decode("ascii")
    try:
        known = Link.parse(head) if head else None
        with file.open("rb") as log:
            verdict = _check(log, known)
    except MalformedError as error:
        _give_up(f"--head: {error.detail}")
    except OSError as error:
        _give_up(f"{name} can't be read: {error.strerror}.")
    if as_json:
        typer.echo(json.dumps({"file": name, **asdict(verdict)}))
    else:
        _say(f"{name}: ", verdict)
    raise typer.Exit(Exit.WHOLE if verdict.ok else Exit.DAMAGED)


def _check(log: BinaryIO, head: Link | None) -> Verdict:
    lines = read_lines(log)
    if not sys.stderr.isatty():
        return verify(lines, head=head)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        return verify(_watched(lines, log, progress), head=head)


def _watched(lines: Iterator[bytes], log: BinaryIO, progress: Progress) -> Iterator[bytes]:
    size = log.seek(0, 2) if log.seekable() else None
    if log.seekable():
        log.seek(0)
    task = progress.add_task("Checking", total=size)
    done = 0
    for number, line in enumerate(lines):
        done += len(line)
        if number % _REPORT_EVERY == 0:
            progress.update(task, completed=done)
        yield line


def _say(name: str, verdict: Verdict) -> None:
    if not sys.stdout.isatty():
        typer.echo(f"{name}{verdict}")
        return
    # soft_wrap: one line stays one line, to be copied
    style = "green" if verdict.ok else "bold red"
    Console().print(Text(name) + Text(str(verdict), style=style), soft_wrap=True)


def _give_up(sentence: str) -> NoReturn:
    typer.echo(f"relay audit verify: {sentence}", err=True)
    raise typer.Exit(Exit.UNREADABLE)
