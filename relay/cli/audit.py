"""`relay audit`: proves that an audit log is whole, or says where it is not.

Nothing of the log's content is printed: who can write into a log must not be able to write to the terminal
of the person who checks it.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.text import Text

from relay.audit.chain import MAX_LINE, Link, unseal
from relay.audit.files import log_files
from relay.audit.verdict import Kind, Problem, Verdict
from relay.audit.verify import read_lines, verify_files
from relay.cli.serve import ConfigOption, config_path
from relay.core.errors import ConfigurationError, MalformedError
from relay.core.jws import VerifyKey
from relay.keys.files import load_records
from relay.settings.load import load
from relay.state.sqlite import read_head

app = typer.Typer(no_args_is_help=True, help="Check the audit log.")

_REPORT_EVERY = 1000
"""Lines between two steps of the progress bar, which would otherwise cost more than the check."""


class Exit(IntEnum):
    """Exit codes of `relay audit verify`: what is wrong, for a script that watches the log."""

    WHOLE = 0
    UNREADABLE = 2
    MODIFIED = 10
    DELETED = 11
    REORDERED = 12
    INSERTED = 13
    MALFORMED = 14
    TORN_END = 15
    CUT_OFF = 16
    REWRITTEN = 17
    BAD_CHECKPOINT = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """What is checked, and what it is checked against."""

    files: Sequence[Path]
    head: Link | None
    keys: Mapping[str, VerifyKey] | None
    complete: bool
    """Whether these are all files of the log."""


@app.callback()
def audit() -> None:
    """Check the audit log."""


@app.command("verify")
def verify_command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="The log's files. None: all that the settings name."),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            metavar="WRITER:SEQ:HASH",
            help="The log's last known record, kept elsewhere. Proves that the end is not cut off.",
        ),
    ] = "",
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the public keys that signed the checkpoints."),
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as one JSON object.")] = False,
) -> None:
    """Name the first modified, deleted, inserted or reordered record of an audit log.

    Without FILE: the settings' log, against its own keys and the head in the state store. Exit code 0: whole.
    2: something could not be read. From 10 on: damaged; relay/audit/README.md has a table.
    """
    try:
        known = Link.parse(head) if head else None
        evidence = _given(files, known, keys) if files else _configured(known, keys, config)
        verdict = _complete(_check(evidence), evidence)
    except MalformedError as error:
        _give_up(f"--head: {error.detail}")
    except ConfigurationError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"{_shown(error.filename or 'the state file')} can't be read: {error.strerror or error}.")
    named = evidence.files[verdict.problem.file if verdict.problem else -1]
    if as_json:
        typer.echo(json.dumps({"file": _shown(named), **asdict(verdict)}))
    else:
        _say(f"{_shown(named)}: ", verdict)
    raise typer.Exit(Exit[verdict.problem.kind.name] if verdict.problem else Exit.WHOLE)


def _given(files: Sequence[Path], head: Link | None, keys: Path | None) -> _Evidence:
    """Take the files that were named, in the order of their first records."""
    known = None if keys is None else {record.kid: record.verify for record in load_records(keys)}
    return _Evidence(files=sorted(files, key=_first), head=head, keys=known, complete=False)


def _configured(head: Link | None, keys: Path | None, config: Path | None) -> _Evidence:
    """Take what the settings name: all files of the log, its keys, and the head that the state store keeps."""
    settings = load(config_path(config))
    path = settings.audit.path
    files = [file for file in log_files(path) if file.exists()] or [path]
    records = load_records(keys or settings.audit.keys_dir)
    if head is None and settings.engine.state_path.exists():
        kept = read_head(settings.engine.state_path, path)
        head = Link(*kept) if kept else None
    return _Evidence(
        files=files, head=head, keys={record.kid: record.verify for record in records}, complete=True
    )


def _complete(verdict: Verdict, evidence: _Evidence) -> Verdict:
    """Say that files are missing which the log itself says are kept."""
    if verdict.problem is not None or not evidence.complete or verdict.began <= verdict.oldest:
        return verdict
    sentence = (
        f"the older files with records {verdict.oldest} to {verdict.began - 1} are missing; "
        "the log says that they are kept."
    )
    return replace(verdict, ok=False, problem=Problem(kind=Kind.DELETED, line=1, sentence=sentence))


def _first(file: Path) -> int:
    """Return the number of a file's first record; of one that has none, 0: what is wrong with it comes first."""
    with file.open("rb") as log, suppress(MalformedError):
        return unseal(log.readline(MAX_LINE)).link.seq
    return 0


def _check(evidence: _Evidence) -> Verdict:
    with ExitStack() as stack:
        logs = [stack.enter_context(file.open("rb")) for file in evidence.files]
        lines: Iterable[Iterable[bytes]] = [read_lines(log) for log in logs]
        if sys.stderr.isatty():
            progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
            size = sum(os.fstat(log.fileno()).st_size for log in logs)
            task = progress.add_task("Checking", total=size or None)
            lines = [_watched(file, progress, task) for file in lines]
        return verify_files(lines, head=evidence.head, keys=evidence.keys)


def _watched(lines: Iterable[bytes], progress: Progress, task: TaskID) -> Iterator[bytes]:
    done = 0
    for number, line in enumerate(lines):
        done += len(line)
        if number % _REPORT_EVERY == 0:
            progress.update(task, advance=done)
            done = 0
        yield line


def _shown(path: object) -> str:
    return str(path).encode("unicode_escape").decode("ascii")


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
