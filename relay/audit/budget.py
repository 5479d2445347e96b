"""How many denials are recorded one by one, and what is only counted, so that a flood can't fill the disk.

A user and an address have so many single records a minute, and all together fifty times that. A publisher whose key
was right has its own, wherever it calls from: teams share a network, and one must not hide what another was refused.
What goes beyond is counted by action and reason, for one record at the minute's end that says how many there were of
what, who had the most, and how many each publisher had. Refusals of tokens that were signed here and are still alive
are always recorded singly: they are what a security team looks for, and nobody can make more than tokens are issued
and tried within 30 s.

Refusals that are the relay's own doing (it stops, a part is down) are counted apart from those that are the
client's: during a restart everybody behind one address is refused, and that is no attack.
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
"""How many users or addresses may use up their budgets in one minute: at 60 records that is 50 a second, 3 MB a
minute, and a flood from a thousand addresses writes no more."""
BURST = 20
"""Denials in a minute from which on they are called a burst: a client that obeys Retry-After and its back-off has
fewer than ten."""
MAX_KEYS = 20_000
"""Users and addresses told apart in one minute, some 4 MB. Who comes later is only counted."""
_TOP = 5

_Key = tuple[str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a denial: whether it has its own record, and whether it belongs to a burst."""

    recorded: bool
    burst: bool


class DenialBudget:
    """Counts one minute's denials; `end_period` begins the next one. `each` is for one user or address."""

    def __init__(self, *, each: int) -> None:
        self._each = each
        self._recorded = 0
        self._counts: dict[_Key, int] = {}
        self._overflow: dict[str, Counter[str]] = {}
        self._beyond: Counter[_Key] = Counter()

    def count(self, event: Event) -> Decision:
        """Count a denial and tell what becomes of it."""
        ours = event.reason is not None and answer_for(event.reason).status >= 500
        counts, keys, most = self._counts, _keys(event, ours=ours), 0
        room = len(counts) < MAX_KEYS or all(key in counts for key in keys)
        for key in keys if room else ():
            counts[key] = count = counts.get(key, 0) + 1
            most = max(most, count)
        recorded = event.reason in ANOMALY_OF or (
            room and most <= self._each and self._recorded < self._each * SHARES
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
        """Return what was only counted since the last call, fit for a record, and begin a new minute."""
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
    """Return in whose name a denial is counted."""
    publisher = event.relay.get("publisher", {}).get("id", "")
    if publisher:
        return [("publisher", publisher, ours)]
    who = (("user", event.user), ("address", network_of(event.client.address)))
    return [(kind, name, ours) for kind, name in who if name]


def _top(beyond: Counter[_Key], kind: str) -> dict[str, int]:
    """Return the users or addresses that had the most."""
    return dict(_of(beyond, kind).most_common(_TOP))


def _of(beyond: Counter[_Key], kind: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for (key_kind, name, _), count in beyond.items():
        if key_kind == kind:
            found[name] += count
    return found
