"""`relay audit verify`: proves that an audit log is whole, or says where it is not.

It prints nothing of the log's content. Otherwise a person who can write into a log could write to the terminal of
the person who checks it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NoReturn

import typer

from relay.audit.chain import MAX_LINE, Link, unseal
from relay.audit.files import chains as log_chains
from relay.audit.files import is_written, process_number
from relay.audit.index.manifest import Verified, folder_of, write_verified
from relay.audit.query.records import iso
from relay.audit.two_processes import find_boundaries, other_process, parts_of
from relay.audit.verdict import Kind, Problem, Verdict
from relay.audit.verify import Part, open_log, verify_files, verify_parts
from relay.cli.audit.heads import Head, Heads
from relay.cli.audit.input import NO_DUCKDB
from relay.cli.options import ConfigOption, JsonOption, load_settings
from relay.core.errors import ConfigurationError, MalformedError
from relay.core.jws import VerifyKey
from relay.core.quantities import counted
from relay.keys.files import key_names, load_records
from relay.settings.audit_log import MEMORY_MB

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from relay.settings.load import Settings

_REPORT_EVERY = 1000
"""Lines between two steps of the progress bar: a step for each line would cost more than the check."""


HeadOption = Annotated[
    str,
    typer.Option(
        "--head",
        metavar="WRITER:SEQ:HASH",
        help="The log's last known record, from another place. It proves that the end is not cut off.",
    ),
]


class Exit(IntEnum):
    """Exit codes of `relay audit verify`, for a script that watches the log. Those from 10 on name the damage."""

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
    OTHER_INDEX = 19


_WHICH_KEYS = (
    "Take the folder that the relay has as audit.keys_dir, or a copy of its public keys; a relay makes it at its first "
    "start."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """One chain: what is checked, and what it is checked against."""

    files: Sequence[Path]
    head: Head
    keys: Mapping[str, VerifyKey] | None
    complete: bool
    """Whether these are all files of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A chain that was checked: the name of its damaged or newest file, the verdict, and how the chain ended."""

    files: Sequence[Path]
    name: str
    verdict: Verdict
    end: str
    head_from: str


def check(
    files: Sequence[Path],
    *,
    tell: Callable[[str], None],
    head: Link | None = None,
    keys: Path | None = None,
    config: Path | None = None,
) -> list[Checked]:
    """Check the chains of these files; or without files those of the settings. Keep what was found for the index.

    `tell` gets what the engine of the settings could not answer: it changes no verdict.

    Raises:
        ConfigurationError: if the settings or the head can't be used.
        MalformedError: if the state store has a head that is none.
        OSError: if a file can't be read.
    """
    settings = None
    if not files or config is not None:
        settings = load_settings(config, otherwise="To check files without settings, name them as arguments.")
    heads = Heads(given=head, settings=settings, tell=lambda text: tell(_escaped(text)))
    heads.ask()
    chains = _named(files, heads, keys) if files or settings is None else _configured(settings, heads, keys)
    missing = [] if files or settings is None else heads.missing(settings.audit.path)
    removed = [_removed(file, sentence) for file, sentence in missing]
    verdicts = [_complete(_check(evidence), evidence) for evidence in chains]
    with suppress(OSError):  # of an index that can't be written, as that of another user
        said = _together([*verdicts, *(one.verdict for one in removed)])
        write_verified(folder_of(chains[0].files[-1]), Verified(iso(datetime.now(UTC)), said))
    return [
        Checked(
            files=evidence.files,
            name=_escaped(evidence.files[verdict.problem.file if verdict.problem else -1]),
            verdict=verdict,
            end=_end_of(evidence.files[-1], verdict) + _of_head(evidence.head, verdict),
            head_from=evidence.head.source,
        )
        for evidence, verdict in zip(chains, verdicts, strict=True)
    ] + removed


def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="The log's files. Default: all files that the settings name."),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", metavar="FILE", help="The same as FILE, as questions have it."),
    ] = None,
    head: HeadOption = "",
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the public keys that signed the checkpoints."),
    ] = None,
    config: ConfigOption = None,
    index: Annotated[
        bool, typer.Option("--index", help="Also read the log again for its index, and compare the two.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Name the first modified, deleted, inserted or reordered record of an audit log.

    Without FILE, the log of the settings is checked against its own keys, and against the heads in the state store
    and in the engine. With --config, files that are named are compared with the engine's heads too. Each process of
    several has a chain of its own, and a line in the answer.

    Exit code 0: the log is whole; 2: something could not be read; from 10
    on: the log is damaged, and relay/audit/README.md has a table of codes.
    """
    try:
        found = check(
            [*(files or ()), *(file or ())], tell=_tell, head=parse_head(head), keys=keys, config=config
        )
        differing = _compare(found) if index else None
    except ConfigurationError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(unreadable(error))
    more = {} if differing is None else {"index_differing": differing}
    for one in found:
        if as_json:
            typer.echo(
                json.dumps({"file": one.name, **asdict(one.verdict), "head_from": one.head_from, **more})
            )
        else:
            _print(one.name, one.verdict, one.end)
    if differing is not None and not as_json:
        typer.echo(
            f"the index differs from the log in {counted(differing, 'row')}: remove the folder"
            if differing
            else "the index is what the log says"
        )
    raise typer.Exit(exit_code(found) or (Exit.OTHER_INDEX if differing else Exit.WHOLE))


def _together(verdicts: Sequence[Verdict]) -> str:
    """Return what answers say of the check: the verdict of the only chain, the damage, or how many are whole."""
    damaged = [verdict for verdict in verdicts if verdict.problem is not None]
    if len(verdicts) > 1 and not damaged:
        return f"all {len(verdicts)} chains are whole"
    return "; ".join(dict.fromkeys(map(str, damaged or verdicts)))


def parse_head(text: str) -> Link | None:
    """Read the value of --head.

    Raises:
        ConfigurationError: if it is no head.
    """
    try:
        return Link.parse(text) if text else None
    except MalformedError as error:
        raise ConfigurationError(f"--head: {error.detail}") from None


def exit_code(found: Sequence[Checked]) -> Exit:
    """Return the exit code of the first damage, 0 if there is none."""
    problem = next((one.verdict.problem for one in found if one.verdict.problem), None)
    return Exit[problem.kind.name] if problem else Exit.WHOLE


def _end_of(newest: Path, verdict: Verdict) -> str:
    """Return how a whole chain of a process ended. A relay that is alone always continues its chain."""
    if verdict.problem is not None or not process_number(newest):
        return ""
    if is_written(newest):
        return ", its process runs"
    return ", closed in order" if verdict.closed else ", not closed: its process was killed"


def _of_head(head: Head, verdict: Verdict) -> str:
    """Return the end of the line, about where the head is from."""
    if not head.said:
        return ""
    return f", {head.said}" if verdict.ok else f" {head.said[0].upper()}{head.said[1:]}."


def _compare(chains: Sequence[Checked]) -> int:
    """Return how many rows of the index are not what the log says.

    Raises:
        ConfigurationError: if DuckDB is not installed, or others can write into the index.
    """
    try:
        from relay.audit.index.database import Index
    except ModuleNotFoundError:
        raise ConfigurationError(NO_DUCKDB) from None
    files = [file for chain in chains for file in chain.files]
    folder = folder_of(files[-1])
    with Index(folder, files, memory_mb=MEMORY_MB) as made:
        return made.differing()


def _named(files: Sequence[Path], heads: Heads, keys: Path | None) -> list[_Evidence]:
    """Take the files of the arguments: a chain for each process that their names tell, in the order of the records."""
    known = None if keys is None else _keys_of(keys, option="--keys")
    found: dict[int, list[Path]] = {}
    for file in sorted(files, key=_first):
        found.setdefault(process_number(file), []).append(file)
    chains = [found[number] for number in sorted(found)]
    return [
        _Evidence(files=chain, head=head, keys=known, complete=False)
        for chain, head in zip(chains, heads.of(chains), strict=True)
    ]


def _configured(settings: "Settings", heads: Heads, keys: Path | None) -> list[_Evidence]:
    """Take all chains of the settings' log, and its keys."""
    chains = [
        [file for file in chain if file.exists()] or chain[-1:] for chain in log_chains(settings.audit.path)
    ]
    folder, option = (keys, "--keys") if keys else (settings.audit.keys_dir, "audit.keys_dir")
    known = _keys_of(folder, option=option)
    return [
        _Evidence(files=chain, head=head, keys=known, complete=True)
        for chain, head in zip(chains, heads.of(chains), strict=True)
    ]


def _keys_of(folder: Path, *, option: str) -> dict[str, VerifyKey]:
    """Return the public keys in a folder. Without the one that signed them, no checkpoint can be checked.

    Raises:
        ConfigurationError: if there are none, or one can't be read.
        OSError: if the folder can't be read.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{option}: there is no folder {_escaped(folder)}. {_WHICH_KEYS}")
    if not key_names({entry.name for entry in folder.iterdir()}):
        raise ConfigurationError(f"{option}: {_escaped(folder)} has no key. {_WHICH_KEYS}")
    return {record.kid: record.verify for record in load_records(folder)}


def _removed(file: Path, sentence: str) -> Checked:
    """Return the verdict on a log that is not there."""
    problem = Problem(kind=Kind.DELETED, line=1, sentence=sentence)
    empty = replace(verify_files([], keys={}), ok=False, problem=problem)
    return Checked(files=[file], name=_escaped(file), verdict=empty, end="", head_from="engine")


def _complete(verdict: Verdict, evidence: _Evidence) -> Verdict:
    """Report files that are missing although the log itself says that they are kept."""
    if verdict.problem is not None or not evidence.complete or verdict.began <= verdict.oldest:
        return verdict
    sentence = (
        f"the older files with records {verdict.oldest} to {verdict.began - 1} are missing; "
        "the log says that they are kept."
    )
    return replace(verdict, ok=False, problem=Problem(kind=Kind.DELETED, line=1, sentence=sentence))


def _first(file: Path) -> int:
    """Return the number of a file's first record. It is 0 if there is none, so that this problem is found first."""
    link = _first_link(file)
    return link.seq if link else 0


def _first_link(file: Path) -> Link | None:
    with file.open("rb") as log, suppress(MalformedError):
        return unseal(log.readline(MAX_LINE)).link
    return None


def _check(evidence: _Evidence) -> Verdict:
    """Check a chain: a long one in two processes."""
    files, head, keys = evidence.files, evidence.head.link, evidence.keys
    boundaries = find_boundaries(files)
    with ExitStack() as stack:
        # before the progress bar, which has a thread
        other = (
            stack.enter_context(other_process(files, boundaries, head=head, keys=keys))
            if boundaries
            else None
        )
        logs = [stack.enter_context(open_log(file)) for file in files]
        parts = parts_of(logs, boundaries)
        if sys.stderr.isatty():
            parts = _shown(parts, logs, 2 if other else 1, stack)
        return verify_parts(
            parts,
            is_ours=other.take if other else lambda: True,
            others=other.verdict if other else lambda: None,
            head=head,
            keys=keys,
        )


def _shown(parts: Sequence[Part], logs: Sequence[BinaryIO], processes: int, stack: ExitStack) -> list[Part]:
    """Show a progress bar while the lines are read. Each of several processes reads as much as this one."""
    from rich.console import Console
    from rich.progress import Progress

    progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    size = sum(os.fstat(log.fileno()).st_size for log in logs)
    task = progress.add_task("Checking", total=size / processes or None)
    return [
        part._replace(files=[(number, _with_progress(lines, progress, task)) for number, lines in part.files])
        for part in parts
    ]


def _with_progress(lines: Iterable[bytes], progress: "Progress", task: "TaskID") -> Iterator[bytes]:
    done = 0
    for number, line in enumerate(lines):
        done += len(line)
        if number % _REPORT_EVERY == 0:
            progress.update(task, advance=done)
            done = 0
        yield line


def unreadable(error: OSError) -> str:
    """Return the sentence about a file that can't be read."""
    return f"{_escaped(error.filename or 'the state file')} can't be read: {error.strerror or error}."


def _escaped(path: object) -> str:
    return str(path).encode("unicode_escape").decode("ascii")


def _print(name: str, verdict: Verdict, end: str) -> None:
    if not sys.stdout.isatty():
        typer.echo(f"{name}: {verdict}{end}")
        return
    from rich.console import Console
    from rich.text import Text

    style = "green" if verdict.ok else "bold red"
    # soft_wrap: a line stays one line, so that it can be copied
    Console().print(Text(f"{name}: ") + Text(f"{verdict}{end}", style=style), soft_wrap=True)


def _tell(note: str) -> None:
    typer.echo(f"relay audit verify: {note}", err=True)


def _give_up(sentence: str) -> NoReturn:
    typer.echo(f"relay audit verify: {sentence}", err=True)
    raise typer.Exit(Exit.UNREADABLE)
