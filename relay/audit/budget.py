"""The budgets of denials and subscriptions: how many have a record of their own, so that a flood can't fill the disk.

Each user and each address has a number of records a minute, and all together have fifty times that. Denials beyond
that are counted by action and reason. One record at the end of the minute has the counts, the users and addresses
with the most denials, and the number of each publisher. Accepted subscriptions have a budget for each session.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.audit.anomalies import refused_token_anomaly
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
MAX_AWAITED = 600
"""Refusals in a minute that are answered only after their record is in the file: ten a second. One write costs about a
millisecond, so a thousand accounts that replay all their tokens can't slow the log down. Later ones of the minute are
answered at once."""
MAX_SESSIONS = 100_000
"""Sessions and addresses whose subscriptions are counted separately in one minute, some 20 MB: five times as many as
connections. Further ones share one budget."""
_OTHERS = ("others", "")
_TOP = 5

_Key = tuple[str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a denial has a record of its own, and whether it belongs to a burst.

    `awaited`: it looks like theft, and is answered after its record is in the file.
    """

    recorded: bool
    burst: bool
    awaited: bool


class DenialBudget:
    """Counts the denials of one minute; `end_period` starts the next. `each`: the budget of one user or address."""

    def __init__(self, *, each: int) -> None:
        self.each = each
        self._recorded = 0
        self._counts: dict[_Key, int] = {}
        self._overflow: dict[str, Counter[str]] = {}
        self._beyond: Counter[_Key] = Counter()
        self._tokens: set[tuple[str, str]] = set()
        self._awaited = 0

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
        is_first = self._is_first_of_token(event)
        recorded = is_first or (room and most <= self.each and self._recorded < self.each * SHARES)
        if recorded:
            self._recorded += 1
        else:
            reasons = self._overflow.setdefault(event.action.value, Counter())
            reasons[event.reason.value if event.reason else "none"] += 1
            for key in keys if room else ():
                self._beyond[key] += 1
        awaited = is_first and self._awaited < MAX_AWAITED
        self._awaited += awaited
        return Decision(recorded=recorded, burst=not ours and most >= BURST, awaited=awaited)

    def _is_first_of_token(self, event: Event) -> bool:
        """Tell whether this is the first refusal in this minute of a token that somebody misuses.

        A security team looks for these, so each token has a record, whatever else was refused. Its repetitions have
        none of their own: the thief of one token could fill the disk with them.
        """
        if refused_token_anomaly(event) is None or len(self._tokens) >= MAX_KEYS:
            return False
        # a refresh token has no name: its log-in's session, or all that are unknown together
        of = event.relay.get("token", {}).get("jti") or event.relay.get("session", {}).get("ref", "")
        token = (str(of), str(event.reason))
        is_first = token not in self._tokens
        self._tokens.add(token)
        return is_first

    def end_period(self) -> Mapping[str, Any] | None:
        """Return the denials without a record since the last call, as details of an event, and start a new minute."""
        overflow, beyond = self._overflow, self._beyond
        self._recorded = 0
        self._counts, self._overflow, self._beyond = {}, {}, Counter()
        self._tokens = set()
        self._awaited = 0
        if not overflow:
            return None
        return {
            "denied": {action: dict(reasons) for action, reasons in overflow.items()},
            "count": sum(reasons.total() for reasons in overflow.values()),
            "users": _top(beyond, "user"),
            "addresses": _top(beyond, "address"),
            "publishers": dict(_of(beyond, "publisher")),
        }


class SubscriptionBudget:
    """Counts the accepted subscriptions of one minute; `end_period` starts the next.

    `each`: the records of one session. An address has the budget of `SHARES` sessions, because an office or a mobile
    network has one address. There is no budget for all together: at the opening of a market, everybody subscribes.
    """

    def __init__(self, *, each: int) -> None:
        self.each = each
        self._counts: dict[tuple[str, str], int] = {}
        self._beyond: Counter[tuple[str, str]] = Counter()
        self._overflow = 0

    def count(self, event: Event) -> bool:
        """Count a subscription, and tell whether it has a record of its own."""
        limits = {
            ("session", str(event.relay.get("session", {}).get("ref", ""))): self.each,
            ("address", network_of(event.client.address)): self.each * SHARES,
        }
        counts, recorded = self._counts, True
        for key, limit in limits.items():
            counted = key if key in counts or len(counts) < MAX_SESSIONS else _OTHERS
            counts[counted] = count = counts.get(counted, 0) + 1
            if count > limit:
                recorded = False
                self._beyond[counted] += 1
        self._overflow += not recorded
        return recorded

    def end_period(self) -> Mapping[str, Any] | None:
        """Return the subscriptions without a record since the last call, as details of an event."""
        overflow, beyond = self._overflow, self._beyond
        self._counts, self._beyond, self._overflow = {}, Counter(), 0
        if not overflow:
            return None
        return {
            "count": overflow,
            "sessions": _most(beyond, "session"),
            "addresses": _most(beyond, "address"),
        }


def _most(beyond: Counter[tuple[str, str]], kind: str) -> dict[str, int]:
    found = Counter({name: count for (key_kind, name), count in beyond.items() if key_kind == kind})
    return dict(found.most_common(_TOP))


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
