"""Counts of the audit log's events, taken where they are made and before floods of them are aggregated.

Metrics and the audit log come from the same events, so they can't disagree. Bounded: what is told apart are closed sets
(`relay.core.events.to_labels`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from relay.core.events import Event, to_labels


class Key(NamedTuple):
    """What events are told apart by; "" where there is none."""

    action: str
    outcome: str
    reason: str
    endpoint: str


class Tally:
    """How often each kind of event happened. `add` is an observer of the auditor's."""

    def __init__(self) -> None:
        self._counts: Counter[Key] = Counter()

    def add(self, event: Event) -> None:
        """Count one event."""
        self._counts[Key(**to_labels(event))] += 1

    def counts(self) -> Mapping[Key, int]:
        """Return the counts as they are now."""
        return dict(self._counts)
