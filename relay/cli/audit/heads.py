"""The heads of audit logs that are kept in other places than the logs: given, in the state store, in the engine.

A chain is compared with one head. Of the engine's, one that a process did not find in its file comes first: the log was
cut, and goes on without what it names.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from relay.audit.chain import MAX_LINE, Link, unseal
from relay.audit.files import process_number, process_path
from relay.audit.query.records import iso
from relay.core.errors import ConfigurationError, MalformedError, UnavailableError
from relay.engine.address import read_address
from relay.engine.heads import KnownHead, read_heads
from relay.engine.options import EngineOptions

if TYPE_CHECKING:
    from relay.settings.load import Settings

_SHOWN = 5
"""Logs of other places that a note names."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head and where it is from: "given", "state" or "engine". Without a link there is none."""

    link: Link | None = None
    source: str = ""
    said: str = ""
    """A part of a sentence about the source."""


@dataclass(slots=True, kw_only=True)
class Heads:
    """The heads that chains are compared with. `tell` gets what the engine can't answer: that is no verdict."""

    given: Link | None
    settings: "Settings | None"
    tell: Callable[[str], None]
    _known: Sequence[KnownHead] = ()
    _answered: bool = False
    _writers: set[str] = field(default_factory=set)

    def ask(self) -> None:
        """Ask the engine, if the settings name one. Do it before the files are read: they may grow."""
        if self.settings is None or not (url := self.settings.engine.url.get_secret_value()):
            return
        engine = self.settings.engine
        try:
            address = read_address(url, password_file=engine.password_file)
            self._known = asyncio.run(read_heads(EngineOptions(address=address, prefix=engine.prefix)))
        except (ConfigurationError, UnavailableError) as error:
            self.tell(f"the engine's heads were not compared: {error}")
        else:
            self._answered = True

    def of(self, chains: Sequence[Sequence[Path]]) -> list[Head]:
        """Return the head of each chain.

        Raises:
            ConfigurationError: if the given one belongs to none of several.
        """
        writers = [_writer(chain[0]) for chain in chains]
        self._writers = set(writers)
        given = self.given
        if given is not None and len(chains) > 1 and given.writer not in writers:
            raise ConfigurationError(
                f"--head: none of the {len(chains)} chains has the writer {given.writer}."
            )
        is_alone = len(chains) == 1
        return [
            Head(given, "given")
            if given is not None and (is_alone or given.writer == writer)
            else self._kept(chain[-1], writer)
            for chain, writer in zip(chains, writers, strict=True)
        ]

    def missing(self, path: Path) -> list[tuple[Path, str]]:
        """Return what the engine knows of the log at `path` on this machine and no chain has: file and sentence.

        It names the logs of other places, which nobody has checked here.
        """
        found, others = [], set()
        for head in self._known:
            if head.link.writer in self._writers or head.file_may_be_deleted or head.was_missing:
                continue
            if not head.is_on_this_machine or not _belongs(head.file, path.resolve()):
                others.add(head.place)
                continue
            sentence = (
                f"the engine knew record {head.link.seq} of the log {head.link.writer} at {_time(head.at)}, and "
                "no file has it; the log was removed or replaced."
            )
            found.append((head.file, sentence))
        if others:
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            shown = ", ".join(sorted(others)[:_SHOWN])
            self.tell(f"the engine knows logs that were not checked here: {shown}{more}")
        return found

    def _kept(self, path: Path, writer: str) -> Head:
        """Return the head that the engine or the state store keeps of a chain."""
        local = self._local(path)
        if local.link is not None and local.link.writer != writer:
            return local  # another log stands where this one stood
        known = [head for head in self._known if head.link.writer == writer]
        if self._answered and writer and not known:
            self.tell(
                f"the engine has no head of the log {writer}: it has lost data since, or the log was written without it"
            )
        cut = min((head for head in known if head.was_missing), key=lambda head: head.link.seq, default=None)
        newest = max(known, key=lambda head: head.link.seq, default=None)
        if cut is not None:
            return Head(
                cut.link,
                "engine",
                f"the engine has known this head since {_time(cut.at)}, and a process continued the log without it",
            )
        if newest is not None and (local.link is None or newest.link.seq >= local.link.seq):
            return Head(newest.link, "engine", f"the head is the engine's, of {_time(newest.at)}")
        return local

    def _local(self, path: Path) -> Head:
        if self.settings is None or not self.settings.engine.state_path.exists():
            return Head()
        from relay.state.sqlite import read_head

        found = read_head(self.settings.engine.state_path, path)
        return Head(Link(*found), "state") if found else Head()


def _belongs(file: Path, path: Path) -> bool:
    """Tell whether a file is the log at `path`, or that of a process beside it."""
    number = process_number(file)
    return file == (process_path(path, number) if number else path)


def _time(at: float) -> str:
    return iso(datetime.fromtimestamp(at, UTC))


def _writer(file: Path) -> str:
    """Return the writer of a file's first record, "" if there is none."""
    with suppress(FileNotFoundError, IsADirectoryError), file.open("rb") as log, suppress(MalformedError):
        return unseal(log.readline(MAX_LINE)).link.writer
    return ""
