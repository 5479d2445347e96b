"""A day's work in a log, made by the relay's own record functions, and counted apart from them while it is made."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from relay.audit.chain import Link, seal
from relay.core.errors import Reason
from relay.core.events import Action, Client, Event, to_record

BEGIN = datetime(2026, 11, 26, tzinfo=UTC)
FIRST = Link(writer="w" * 32, seq=0, hash="0" * 64)
"""What the first record of a log follows."""
GRANTED = {
    "trader": {"prices": ["prices.>"], "trades": ["trades.>", "trades.BTC-USD"]},
    "guest": {"prices": ["prices.BTC-USD", "prices.ETH-USD"]},
}


@dataclass
class Day:
    """What happened, as plain lists: `open_at` tells who was connected."""

    path: Path
    stories: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    spans: list[tuple[str, str, datetime, datetime | None]] = field(default_factory=list)
    granted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    used: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    watched: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    lost: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    head: Link = FIRST

    def open_at(self, endpoint: str, at: datetime) -> set[str]:
        """Return the connections to an endpoint that are open at a moment."""
        return {
            connection
            for connection, where, begun, ended in self.spans
            if where == endpoint and begun <= at and (ended is None or ended > at)
        }


def make_day(
    path: Path,
    *,
    tokens: int,
    seed: int = 7,
    begin: datetime = BEGIN,
    prefix: str = "",
    after: Link = FIRST,
    more: Iterable[tuple[datetime, Event]] = (),
) -> Day:
    """Write a day with so many tokens: most are used, some are replayed or never used, some connections never end.

    `prefix` tells the names of a day's tokens and connections from those of another day, whose last link is `after`.
    `more` are other events of the day.
    """
    dice = random.Random(seed)
    day, events = Day(path), []

    def add(at: datetime, action: Action, jti: str, **more: Any) -> None:
        reason = more.pop("reason", None)
        events.append((at, Event(action=action, reason=reason, **more)))
        day.actions[action.value] += 1
        day.stories[jti].append(action.value)

    for number in range(tokens):
        at = begin + timedelta(milliseconds=dice.randrange(86_000_000))
        role = dice.choice(["trader", "guest"])
        user = f"{role}-{dice.randrange(200)}"
        endpoint = dice.choice(list(GRANTED[role]))
        channels = GRANTED[role][endpoint]
        jti, connection = f"{prefix}jti-{number}", f"{prefix}connection-{number}"
        client = Client(address=f"10.0.{dice.randrange(256)}.{dice.randrange(256)}")
        common: dict[str, Any] = {"user": user, "client": client, "endpoint": endpoint}
        issued_at = int(at.timestamp())
        token: dict[str, Any] = {"jti": jti, "channels": channels, "aud": f"wss://example.com/ws/{endpoint}"}
        token |= {"iat": issued_at, "exp": issued_at + 30}
        session = {"ref": f"ref-{user}", "roles": [role]}
        asked = {"endpoint": endpoint, "channels": []}
        add(
            at, Action.TOKEN_ISSUED, jti, **common, relay={"token": token, "session": session, "asked": asked}
        )
        for scope in channels:
            day.granted[role, endpoint, scope] += 1
            day.lost[user, endpoint, scope] += role == "guest" and scope == "prices.ETH-USD"
        chance = dice.random()
        if chance < 0.1:
            continue
        relay = {
            "token": {"jti": jti, "channels": channels, "transport": "subprotocol"},
            "connection": {"id": connection},
        }
        begun = at + timedelta(milliseconds=dice.randrange(1, 2000))
        used = channels[:1] if dice.random() < 0.7 else []
        watched = [name.replace(">", "SOL-USD") for name in used]
        subscribed = {"channels": watched, "count": len(watched)}
        opens_with_it = dice.random() < 0.5
        add(
            begun,
            Action.CONNECT_ACCEPTED,
            jti,
            **common,
            relay=relay | subscribed if opens_with_it else relay,
        )
        if chance < 0.12:
            replay = {"token": {"jti": jti}, "anomalies": ["replay"]}
            add(
                begun + timedelta(milliseconds=5),
                Action.CONNECT_DENIED,
                jti,
                **common,
                relay=replay,
                reason=Reason.TOKEN_REPLAYED,
            )
            day.marked += 1
        if used and not opens_with_it:
            later = begun + timedelta(milliseconds=7)
            relay = {"token": {"jti": jti}, "connection": {"id": connection}, **subscribed}
            add(later, Action.SUBSCRIBE_ACCEPTED, jti, **common, relay=relay)
        for scope in used:
            day.used[role, endpoint, scope] += 1
            day.watched[user, endpoint, scope] += 1
        if chance > 0.98:
            day.spans.append((connection, endpoint, begun, None))
            continue
        ended = begun + timedelta(milliseconds=dice.randrange(10, 3_600_000))
        closing = {
            "token": {"jti": jti},
            "connection": {
                "id": connection,
                "close_code": 1000,
                "initiator": "client",
                "duration_ms": 10,
                "messages_out": 5,
                "scopes": {"used": used, "unused": [name for name in channels if name not in used]},
            },
        }
        add(ended, Action.CONNECTION_CLOSED, jti, **common, relay=closing, reason=Reason.CLIENT_CLOSED)
        day.spans.append((connection, endpoint, begun, ended))
    for at, event in more:
        events.append((at, event))
        day.actions[event.action.value] += 1
    events.sort(key=lambda one: one[0])
    head = after
    with path.open("wb") as file:
        for number, (at, event) in enumerate(events):
            stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line, head = seal(to_record(event, timestamp=stamp, event_id=f"{number:032x}", node="n"), head)
            file.write(line + b"\n")
    day.head = head
    return day
