"""Positions in the fan-out: one id tells how far a client is in all its `stream` channels.

A transport whose clients keep an id (`Last-Event-ID` of event streams) writes one before each value. All its
subscribers get the same bytes. For this the values are numbered in the order in which a flush writes them: what a
subscriber has got when the line is cut is then each of its values up to a number, and no later one.

    <generation>-<number>                   the life of one hub, and the number of a value
    <generation>-<number>-<entry>-<epoch>   with an engine: also an entry of its log, for the hubs of other nodes
    <generation>-<number>-<entry>-<epoch>.<entry>-<epoch>   the same with an engine that has several logs

The numbers of two hubs differ, because each writes what comes to it in its own order. Therefore an id names an entry of
each log, which all nodes have: the subscriber has all values up to it, and perhaps some later ones. On another node
these come again, with the same `epoch` and `seq`. No two logs have an epoch in common.

Snapshots and replays have no id, and neither has what comes before a subscriber has all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.core.publications import Publication

_ENTRY = r"[0-9]{1,18}-[A-Za-z0-9_-]{1,32}"
_FORM = re.compile(rf"([0-9a-z]{{1,16}})-([0-9]{{1,18}})(?:-({_ENTRY}(?:\.{_ENTRY}){{0,63}}))?")


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What a client has got: the values up to `number`, and those up to an entry of the log of each epoch."""

    number: int
    entries: Mapping[str, int] = field(default_factory=dict, hash=False)

    def covers(self, position: int, publication: Publication) -> bool:
        """Tell whether the client has a value. `position` is its place among all values that were written."""
        return position <= self.number or (0 < publication.entry <= self.entries.get(publication.epoch, 0))

    def is_of(self, epoch: str) -> bool:
        """Tell whether an epoch's first value is the first one that the client may have missed of a new channel."""
        return self.number > 0 or epoch in self.entries


class Positions:
    """Numbers the values of one hub. `generation` names the hub's life: two hubs never have the same."""

    def __init__(self, generation: str) -> None:
        self.generation = generation
        self._number = 0
        self._logs: dict[int, str] = {}
        self._delivered = self._flushed = ""  # the part for other nodes
        # Numbers of written values are even. A value that nobody is subscribed to is written to nobody: its place is
        # the odd number after those of all values that were written before it. A subscriber that joins later has it in
        # its snapshot, and each id that it gets is higher.
        self.unwritten = 1
        """The place of a value that was accepted now, until it is written."""

    def delivered(self, entry: int, epoch: str, *, log: int = 0) -> None:
        """Record that the hub was given everything up to an entry of a log of the engine."""
        self._logs[log] = f"{entry}-{epoch}"
        self._delivered = f"-{'.'.join(self._logs.values())}"

    def flushed(self) -> None:
        """Record that everything that was accepted is numbered now, and is written before anything later."""
        self._flushed = self._delivered

    def next(self) -> tuple[int, bytes]:
        """Return the place of a value that is written now, and its id."""
        self._number += 1
        self.unwritten = 2 * self._number + 1
        return 2 * self._number, self._id(self._flushed)

    def newest(self) -> bytes:
        """Return an id for subscribers that have got everything. Nothing may be queued."""
        self._number += 1
        self.unwritten = 2 * self._number + 1
        return self._id(self._delivered)

    def resume(self, last_id: str) -> ResumePoint | None:
        """Return what a client has got that names this id. None: nothing is known about it."""
        found = _FORM.fullmatch(last_id)
        if found is None:
            return None
        generation, number, logs = found.groups()
        # an id of another hub says nothing about the order here, and one that is too high was made up
        is_known = generation == self.generation and int(number) <= self._number
        if not is_known and logs is None:
            return None
        entries = (one.partition("-") for one in (logs or "").split(".") if one)
        return ResumePoint(
            2 * int(number) if is_known else 0, {epoch: int(entry) for entry, _, epoch in entries}
        )

    def first(self, last_id: str) -> str:
        """Return the id of a client before it has got anything. `last_id` is what it named.

        Until its replay is complete it is where it was: if its line is cut before that, it begins there again.
        """
        return last_id if self.resume(last_id) else self.generation

    def _id(self, elsewhere: str) -> bytes:
        return f"{self.generation}-{self._number}{elsewhere}".encode("ascii")
