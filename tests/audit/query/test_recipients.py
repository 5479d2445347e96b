"""Who was sent a message, over kills, epochs, pauses and messages that are sent again: never a wrong verdict."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from relay.audit.chain import Link, seal
from relay.audit.query.records import Record, RecordReader
from relay.audit.query.sent import Message, Verdict, recipients, unreported
from relay.core.events import Action, Event, to_record
from tests.support.audit_days import BEGIN

CHANNEL = "trades.A"
Key = tuple[str, int]
"""Epoch and number of a message."""


def text(second: int) -> str:
    """Return a time of the day as records have it."""
    at: datetime = BEGIN + timedelta(seconds=second)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Reader:
    """A connection: what it was sent, what its next report says, and its records so far."""

    name: str
    since: int
    is_slow: bool = False
    sent: set[Key] = field(default_factory=set)
    rows: dict[str, list[int]] = field(default_factory=dict)
    reports: int = 0

    def send(self, epoch: str, seq: int) -> None:
        """Be sent a message."""
        self.sent.add((epoch, seq))
        self.rows.setdefault(epoch, []).append(seq)

    def event(self, action: Action, **relay: Any) -> Event:
        """Return an event of this connection."""
        own = {"connection": {"id": self.name}, "token": {"jti": self.name, "channels": ["trades.>"]}}
        return Event(action=action, user="u", endpoint="trades", relay=own | relay)

    def report(self, action: Action, now: int) -> Event:
        """Report what it was sent since the last report."""
        rows = []
        for epoch, seqs in self.rows.items():
            low, high = min(seqs), max(seqs)
            is_complete = set(seqs) == set(range(low, high + 1))
            rows.append(
                {"channel": CHANNEL, "epoch": epoch, "first": low, "last": high, "count": len(seqs)}
                | {"complete": is_complete}
            )
        self.rows = {}
        more = {"reports": self.reports} if action is Action.CONNECTION_CLOSED else {}
        self.reports += action is Action.CONNECTION_CHANNELS
        since, self.since = self.since, now
        return self.event(action, since=text(since), sent=rows, **more)


@dataclass
class Day:
    """A log's records, each message with the second of its publication, and the readers."""

    records: list[Record]
    published: dict[Key, int]
    readers: list[Reader]


def make(seed: int) -> Day:  # noqa: C901  # what happens in a second, one thing after the other
    """Let readers come and go, pause, subscribe again from an older message, and be killed with their relay."""
    dice = random.Random(seed)
    published: dict[Key, int] = {}
    readers: list[Reader] = []
    lines, head = [], Link(writer="w" * 32, seq=0, hash="0" * 64)
    open_: list[Reader] = []
    epoch, seq = "e0", 0

    def write(now: int, event: Event) -> None:
        nonlocal head
        line, head = seal(to_record(event, timestamp=text(now), event_id="i", node="n"), head)
        lines.append(line)

    for now in range(1, 400):
        if dice.random() < 0.02:  # kill -9: nothing that waits is written, and memory's epoch is lost
            open_.clear()
            write(now, Event(action=Action.AUDIT_GAP, relay={"unclean_end": True}))
            if dice.random() < 0.6:
                epoch, seq = f"e{now}", 0
            continue
        if dice.random() < 0.3:
            reader = Reader(f"c{now}", now, is_slow=dice.random() < 0.3)
            readers.append(reader)
            open_.append(reader)
            write(now, reader.event(Action.CONNECT_ACCEPTED, channels=[CHANNEL], count=1))
            if seq and dice.random() < 0.8:
                reader.send(epoch, seq)
        if dice.random() < 0.7:
            seq += 1
            published[epoch, seq] = now
            for reader in open_:
                if not reader.is_slow or dice.random() < 0.7:
                    reader.send(epoch, seq)
        for reader in list(open_):
            chance = dice.random()
            if chance < 0.03 and seq:
                write(now, reader.event(Action.SUBSCRIBE_ACCEPTED, channels=[CHANNEL], count=1))
                for older in range(max(1, seq - dice.randrange(1, 12)), seq + 1):
                    reader.send(epoch, older)
            elif chance < 0.07:
                write(now, reader.report(Action.CONNECTION_CHANNELS, now))
            elif chance < 0.12:
                open_.remove(reader)
                write(now, reader.report(Action.CONNECTION_CLOSED, now))
    return Day(list(RecordReader().records(lines)), published, readers)


def verdicts(day: Day, key: Key) -> Iterator[tuple[Reader, Verdict, str]]:
    """Yield each reader with the verdict on a message, and when it ended."""
    epoch, seq = key
    message = Message(epoch=epoch, first=seq, last=seq, published=text(day.published[key]))
    found = {one.connection: one for one in recipients(day.records, CHANNEL, [message])}
    for reader in day.readers:
        yield reader, found[reader.name].verdict, found[reader.name].until


def test_no_verdict_is_wrong() -> None:
    """A message that was sent is never said not to be, and the other way round; most verdicts are certain."""
    told: Counter[Verdict] = Counter()
    for seed in range(6):
        day = make(seed)
        for key in random.Random(seed).sample(sorted(day.published), 25):
            for reader, verdict, until in verdicts(day, key):
                if key in reader.sent:
                    assert verdict is not Verdict.NOT, (seed, key, reader.name)
                else:
                    assert verdict is not Verdict.SENT, (seed, key, reader.name)
                if until and until < text(day.published[key]):
                    assert verdict is Verdict.NOT, "it had ended before, or was killed"
                told[verdict] += 1
    assert told[Verdict.SENT] > 300
    assert told[Verdict.NOT] > told[Verdict.PERHAPS]


def test_what_is_not_reported_is_named() -> None:
    """Each connection whose relay was killed, or that is open, with the time from which on nothing is known."""
    day = make(2)
    lacking = {one.connection: one for one in unreported(day.records, "u")}
    ends = {one.relay.connection.id for one in day.records if one.event.action == Action.CONNECTION_CLOSED}
    assert lacking.keys() == {reader.name for reader in day.readers} - ends
    assert {one.why for one in lacking.values()} == {"killed", "open"}
    assert all(bool(one.until) is (one.why == "killed") for one in lacking.values())
    assert all(one.since == text(reader.since) for reader in day.readers if (one := lacking.get(reader.name)))


def test_subscriptions_that_were_only_counted_hide_readers() -> None:
    """Above the budget, no record names the channel: the open connection may have been sent the message."""
    reader = Reader("c", 1)
    flood = Event(action=Action.SUBSCRIPTIONS_AGGREGATED, relay={"count": 9})
    events = [(1, reader.event(Action.CONNECT_ACCEPTED)), (60, flood)]
    head, lines = Link(writer="w" * 32, seq=0, hash="0" * 64), []
    for now, event in events:
        line, head = seal(to_record(event, timestamp=text(now), event_id="i", node="n"), head)
        lines.append(line)
    message = Message(epoch="e", first=1, last=1)

    def told() -> list[Verdict]:
        return [one.verdict for one in recipients(RecordReader().records(lines), CHANNEL, [message])]

    assert told() == [Verdict.PERHAPS]
    line, _ = seal(
        to_record(reader.report(Action.CONNECTION_CLOSED, 70), timestamp=text(70), event_id="i", node="n"),
        head,
    )
    lines.append(line)
    assert told() == [], "its last record says that it was sent nothing"
