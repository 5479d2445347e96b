"""Counts of the audit log's events, taken where they are made and before floods of them are aggregated.

Metrics and the audit log come from the same events, so they can't disagree. Bounded: what is told apart are closed sets
(`relay.core.events.to_labels`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from relay.core.errors import Reason
from relay.core.events import Action, Event, to_labels


class Key(NamedTuple):
    """What events are told apart by; "" where there is none."""

    action: str
    outcome: str
    reason: str
    endpoint: str


class Tally:
    """How often each kind of event happened. `add` is an observer of the auditor's; it costs an event a microsecond."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Action, Reason | None, str]] = Counter()

    def add(self, event: Event) -> None:
        """Count one event."""
        self._counts[event.action, event.reason, event.endpoint] += 1

    def counts(self) -> Mapping[Key, int]:
        """Return the counts as they are now."""
        return {
            Key(**to_labels(Event(action=action, reason=reason, endpoint=endpoint))): count
            for (action, reason, endpoint), count in self._counts.items()
        }
