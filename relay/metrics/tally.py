"""Counts of the audit log's events, before floods are aggregated.

Metrics and the audit log come from the same events, so they can't disagree. The labels have closed sets of values
(`relay.core.events.to_labels`), so the number of counts is bounded.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from relay.core.errors import Reason
from relay.core.events import Action, Event, to_labels


class Key(NamedTuple):
    """The labels of an event; "" for one that it does not have."""

    action: str
    outcome: str
    reason: str
    endpoint: str


class Tally:
    """How often each kind of event happened. The auditor calls `add` for each event, which costs a microsecond."""

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
