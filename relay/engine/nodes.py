"""The table of nodes in the engine: who they are, how they are, and how far their audit logs are.

A node is the writer of its audit log, which has one process at a time. So a process that continues a log replaces its
row, and the rows are as many as the logs. Each node writes its own every two seconds, and reads the others with the
answer. An operator is answered from that: no request goes to the engine.

The rows decide which format the logs have (`formats.py`), and the heads tell an audit log that ended from one that was
cut (`heads.py`).
"""

import asyncio
import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import structlog

from relay.audit.chain import Link
from relay.core.errors import ConfigurationError, UnavailableError
from relay.engine.connection import RefusedError
from relay.engine.formats import Formats
from relay.engine.heads import AuditPosition
from relay.engine.line import Line
from relay.engine.options import CONTROL, EngineOptions
from relay.engine.scripts import script
from relay.engine.tasks import LastingTask, close_all

EVERY_S = 2.0
"""Seconds between two writes of a node."""
VANISHED_AFTER_S = 10.0
"""Seconds without a write after which a node counts as vanished. Its row stays for an hour."""
_ANSWER_WITHIN_S = 1.0
_AGREE_WITHIN_S = 5 * EVERY_S
"""Seconds that a node waits at its start until the others write a format that it reads."""
_LOOK_AGAIN_S = 0.25
_STEADY = 3
"""Answers in a row that have to allow a newer format. After a loss of data, the others' rows come back one by one."""

log = structlog.get_logger("relay.engine")


class NodeState(StrEnum):
    """What is known of a node. `UNKNOWN`: the engine does not answer, so nobody knows."""

    LIVE = "live"
    DRAINING = "draining"
    STOPPED = "stopped"
    VANISHED = "vanished"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A row of the table. `seen_at` is the engine's time, `began_at` the node's own, in Unix seconds.

    `figures` are what the node says itself. `refs` tells whether two nodes have the same key of session references.
    """

    id: str
    seen_at: float
    began_at: float
    formats: Formats
    writes: int
    has_ended: bool
    refs: str
    figures: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name and release, for errors."""
        return f"{self.figures.get('node', self.id)} (release {self.figures.get('release', '?')})"


@dataclass(slots=True)
class _Seen:
    """The rows of the last answer, the engine's time then, and this node's monotonic time."""

    nodes: Sequence[Node] = ()
    engine_at: float = 0.0
    steady_at: float = -math.inf


@dataclass(slots=True, kw_only=True)
class EngineNodes:
    """Writes the row of this node until `aclose`.

    `on_format` gets the format that this node has to write from now on. `figures` returns what the row says. `refs` is
    a digest of the key of session references, which must be that of all nodes.
    """

    options: EngineOptions
    on_format: Callable[[int], None]
    refs: str = ""
    figures: Callable[[], Mapping[str, Any]] = dict
    cut: int = 0
    """The number of the record that the engine knew and that was not in the audit log at the start, 0 for none."""
    id: str = ""
    _began_at: float = 0.0
    _audit: AuditPosition | None = None
    _writes: int = 0
    _newer: int = 0  # answers in a row that allow a newer format
    _has_ended: bool = False
    _seen: _Seen = field(default_factory=_Seen)
    _failing: bool = False
    _line: Line | None = None
    task: LastingTask | None = None

    async def open(self, audit: AuditPosition, *, clock: Callable[[], float] = time.time) -> None:
        """Write the row of this node for the first time, and agree with the others on a format.

        Raises:
            ConfigurationError: if another node writes a format that this release can't read, can't read any that this
                release writes, or has another key of session references.
            UnavailableError: if the engine does not answer.
        """
        self.id, self._audit, self._began_at = audit.opened.writer, audit, clock()
        self._writes = self.options.formats.oldest
        self.on_format(self._writes)
        self._line = Line(self.options, CONTROL, name="nodes", answer_within_s=_ANSWER_WITHIN_S)
        await self._write()
        try:
            self._check_refs()
            await self._check_formats()
        except ConfigurationError:
            self._has_ended = True  # else the others reckon with this node until it counts as vanished
            await self._write()
            raise
        self.task = LastingTask(self._run, name="nodes")

    @property
    def restarts(self) -> int:
        """How often a task of this part failed and was started again."""
        tasks = (self.task, None if self._line is None else self._line.task)
        return sum(task.restarts for task in tasks if task is not None)

    def known(self) -> list[tuple[Node, NodeState, float]]:
        """Return all nodes as the engine last told, with their states and the seconds since they were seen."""
        passed = time.monotonic() - self._seen.steady_at
        return [
            (node, _state(node, seen_s, passed), seen_s)
            for node in sorted(self._seen.nodes, key=lambda node: str(node.figures.get("node", node.id)))
            for seen_s in [max(0.0, self._seen.engine_at - node.seen_at) + passed]
        ]

    def counts(self) -> dict[str, int]:
        """Return how many nodes are in each state."""
        found = Counter(state for _, state, _ in self.known())
        return {state.value: found[state] for state in NodeState}

    async def keep_head(self, head: Link) -> None:
        """Keep a signed head of the audit log. It is written with the row, and at once if this node has ended.

        Raises:
            UnavailableError: if it has to be written at once, and the engine does not answer.
        """
        if self._audit is not None:
            self._audit = replace(self._audit, head=head)
        if self._has_ended:
            await self._write()

    async def end(self) -> None:
        """Say that this node ends in order. Its row is written once more, with the last head of its audit log."""
        self._has_ended = True
        if self.task is None:
            return
        await self.task.aclose()
        with contextlib.suppress(RefusedError, UnavailableError):  # the row then says that this node vanished
            await self._write()

    async def aclose(self) -> None:
        """Close the connection."""
        await close_all(*(part.aclose for part in (self.task, self._line) if part is not None))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self._write()
            except UnavailableError:  # the line has logged it
                continue
            except RefusedError as error:
                if not self._failing:
                    log.warning("the engine refuses this node's row", error=str(error))
                self._failing = True
            else:
                self._failing = False

    async def _write(self) -> None:
        assert self._line is not None
        assert self._audit is not None
        audit, formats = self._audit, self.options.formats
        arguments: list[str | float] = [
            *(self.id, f"{self._began_at:.6f}", formats.oldest, formats.newest, self._writes),
            *(int(self._has_ended), json.dumps({**self.figures(), "refs": self.refs})),
            *(audit.opened.seq, audit.opened.hash),
            *((audit.head.seq, audit.head.hash) if audit.head else (0, "")),
            *(f"{audit.keep_s:.0f}", audit.place),
        ]
        keys = [self.options.key(CONTROL, name) for name in ("nodes", "heads")]
        now, found, *rows = await self._line.call(script("node"), keys, arguments)
        nodes = [read_node(name, value) for name, value in zip(rows[::2], rows[1::2], strict=True)]
        self._seen = _Seen(nodes, float(now), time.monotonic())
        if found and not self.cut:
            self.cut = int(found.partition(b":")[0])
            log.error(
                "the audit log is not the one that the engine knows: it was replaced or cut off",
                known=f"{self.id}:{found.decode()}",
                last_record=audit.opened.seq,
            )
        if self._agree():  # the others wait for it
            await self._write()

    def _agree(self) -> bool:
        """Choose the format to write: an older one at once, a newer one when that is certain. True: it has changed."""
        running = [node.formats for node in self._seen.nodes if not node.has_ended]
        written = self.options.formats.written(running)
        self._newer = self._newer + 1 if written > self._writes else 0
        if written == self._writes or 0 < self._newer < _STEADY:
            return False
        log.info("this node writes another format of the logs", format=written, before=self._writes)
        self._writes, self._newer = written, 0
        self.on_format(written)
        return True

    def _others(self) -> list[Node]:
        """Return the other nodes that run."""
        running = (NodeState.LIVE, NodeState.DRAINING)
        return [node for node, state, _ in self.known() if node.id != self.id and state in running]

    async def _check_formats(self) -> None:
        """Wait until the others write a format that this node reads, and read one that it writes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _AGREE_WITHIN_S
        for other in self._others():
            if other.formats.newest < self.options.formats.oldest:
                self._refuse(other, f"reads the log format {other.formats}")
        while unlike := [other for other in self._others() if not self.options.formats.reads(other.writes)]:
            if loop.time() > deadline:
                self._refuse(unlike[0], f"writes the log format {unlike[0].writes}")
            await asyncio.sleep(_LOOK_AGAIN_S)
            await self._write()

    def _check_refs(self) -> None:
        """Check that the nodes that began earlier have the same key of session references as this one."""
        for other in self._others():
            if other.refs and self.refs and other.refs != self.refs and other.began_at < self._began_at:
                raise ConfigurationError(
                    f"session.ref_key: the node {other.name} of the same engine has another one, so a log-out at one "
                    "would not end connections at the other. Give all nodes the same key; to change it, stop all of "
                    "them first. Relays that have nothing to do with each other need their own engine.prefix."
                )

    def _refuse(self, other: Node, what: str) -> None:
        raise ConfigurationError(
            f"engine.url: the node {other.name} {what}, and this release reads {self.options.formats}. Two releases "
            "run beside each other only if they share a format: upgrade one release after the other."
        )


def read_node(name: bytes, value: bytes) -> Node:
    """Return the row that stands in a field of the table."""
    seen, began, oldest, newest, writes, ended, text = value.split(b" ", 6)
    figures = json.loads(text)
    return Node(
        id=name.decode(),
        seen_at=float(seen),
        began_at=float(began),
        formats=Formats(oldest=int(oldest), newest=int(newest)),
        writes=int(writes),
        has_ended=ended == b"1",
        refs=figures.pop("refs", ""),  # an older release has none
        figures=figures,
    )


def _state(node: Node, seen_s: float, unknown_s: float) -> NodeState:
    if node.has_ended:
        return NodeState.STOPPED
    if unknown_s > VANISHED_AFTER_S:
        return NodeState.UNKNOWN
    if seen_s > VANISHED_AFTER_S:
        return NodeState.VANISHED
    return NodeState.DRAINING if node.figures.get("stopping") else NodeState.LIVE
