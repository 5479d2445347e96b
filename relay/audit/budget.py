"""The budget of denials: how many have a record of their own, so that a flood can't fill the disk.

Each user and each address has a number of records a minute, and all together have fifty times that. Denials beyond
that are counted by action and reason. One record at the end of the minute has the counts, the users and addresses
with the most denials, and the number of each publisher.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.audit.anomalies import ANOMALY_OF
from relay.core.closes import answer_for
from relay.core.events import Event
from relay.net.addresses import network_of

PERIOD_S = 60.0
SHARES = 50
"""How many users or addresses may use up their budgets in one minute. At 60 records each that is 50 records a second,
3 MB a minute; a flood from a thousand addresses writes no more."""
BURST = 20
"""Denials in a minute that are called a burst. A client that obeys Retry-After and its back-off has fewer than ten."""
MAX_KEYS = 20_000
"""Users and addresses that are counted separately in one minute, some 4 MB. Further ones share one count."""
_TOP = 5

_Key = tuple[str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a denial has a record of its own, and whether it belongs to a burst."""

    recorded: bool
    burst: bool


class DenialBudget:
    """Counts the denials of one minute; `end_period` starts the next. `each`: the budget of one user or address."""

    def __init__(self, *, each: int) -> None:
        self.each = each
        self._recorded = 0
        self._counts: dict[_Key, int] = {}
        self._overflow: dict[str, Counter[str]] = {}
        self._beyond: Counter[_Key] = Counter()

    def count(self, event: Event) -> Decision:
        """Count a denial, and decide whether it has a record."""
        # A refusal by the relay's own fault (it stops, a part is down) is counted separately. During a restart all
        # clients of an address are refused, and that is no attack.
        ours = event.reason is not None and answer_for(event.reason).status >= 500
        counts, keys, most = self._counts, _keys(event, ours=ours), 0
        room = len(counts) < MAX_KEYS or all(key in counts for key in keys)
        for key in keys if room else ():
            counts[key] = count = counts.get(key, 0) + 1
            most = max(most, count)
        # Refusals of valid tokens always have a record: a security team looks for them, and there can't be more than
        # the tokens that are issued in 30 s.
        recorded = event.reason in ANOMALY_OF or (
            room and most <= self.each and self._recorded < self.each * SHARES
        )
        if recorded:
            self._recorded += 1
        else:
            reasons = self._overflow.setdefault(event.action.value, Counter())
            reasons[event.reason.value if event.reason else "none"] += 1
            for key in keys if room else ():
                self._beyond[key] += 1
        return Decision(recorded=recorded, burst=not ours and most >= BURST)

    def end_period(self) -> Mapping[str, Any] | None:
        """Return the denials without a record since the last call, as details of an event, and start a new minute."""
        overflow, beyond = self._overflow, self._beyond
        self._recorded = 0
        self._counts, self._overflow, self._beyond = {}, {}, Counter()
        if not overflow:
            return None
        return {
            "denied": {action: dict(reasons) for action, reasons in overflow.items()},
            "count": sum(reasons.total() for reasons in overflow.values()),
            "users": _top(beyond, "user"),
            "addresses": _top(beyond, "address"),
            "publishers": dict(_of(beyond, "publisher")),
        }


def _keys(event: Event, *, ours: bool) -> list[_Key]:
    """Return the names under which a denial is counted.

    A publisher with a right key has its own budget, from any address. Teams share a network, and the denials of one
    must not hide those of another.
    """
    publisher = event.relay.get("publisher", {}).get("id", "")
    if publisher:
        return [("publisher", publisher, ours)]
    who = (("user", event.user), ("address", network_of(event.client.address)))
    return [(kind, name, ours) for kind, name in who if name]


def _top(beyond: Counter[_Key], kind: str) -> dict[str, int]:
    """Return the users or addresses that had the most denials."""
    return dict(_of(beyond, kind).most_common(_TOP))


def _of(beyond: Counter[_Key], kind: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for (key_kind, name, _), count in beyond.items():
        if key_kind == kind:
            found[name] += count
    return found
