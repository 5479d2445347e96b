"""Events that could not be recorded, counted until a gap record has told of them.

The event loop counts what finds the queue full, the writer's thread what the disk refused; hence the lock.
"""

import threading
from collections import Counter
from dataclasses import dataclass

from relay.core.events import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What was lost: events by action, when the first happened (Unix seconds), and why the last one was."""

    counts: dict[str, int]
    since: float
    cause: str


class Losses:
    """Counts lost events by action. Bounded: there are no more entries than actions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._since = 0.0
        self._cause = ""
        self._ever: Counter[str] = Counter()

    def add(self, action: Action, *, at: float, cause: str) -> None:
        """Count one event of `action` that happened at `at` (Unix seconds)."""
        with self._lock:
            if not self._counts:
                self._since = at
            self._counts[action.value] += 1
            self._ever[action.value] += 1
            self._cause = cause

    def ever(self) -> dict[str, int]:
        """Return the events lost since the start by action, those that a gap record has told of included."""
        with self._lock:
            return dict(self._ever)

    def pending(self) -> Loss | None:
        """Return what no gap record has told of yet; once one has, pass it to `reported`."""
        with self._lock:
            if not self._counts:
                return None
            return Loss(counts=dict(self._counts), since=self._since, cause=self._cause)

    def reported(self, loss: Loss) -> None:
        """Forget `loss`, but not what was added since it was taken."""
        with self._lock:
            self._counts.subtract(loss.counts)
            self._counts += Counter()  # drops the entries that are zero
