"""What a connection was sent of each channel, without any work for a delivery.

A group counts the values that it has handed to the flush: its mark. A subscriber that enters the group keeps the mark
of that moment, which all share that enter then. When it leaves, or becomes too slow, the difference of two marks is
what it got. Only what it gets alone (first values, replays, the newest value after a pause) is counted for itself.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from relay.core.publications import Publication

MAX_SPANS = 1024
"""Spans of a connection between two reports. A pattern can cover thousands of channels, and a client can subscribe to
one after the other. What comes after that is summed up, as messages of no channel."""

REST = ("", "")
"""The key of what is summed up."""


class Run:
    """The values of one epoch in a group. `last` and `total` are set when the next epoch begins."""

    __slots__ = ("epoch", "first", "last", "next", "total")

    def __init__(self, epoch: str, first: int) -> None:
        self.epoch = epoch
        self.first = first
        self.last = self.total = 0
        self.next: Run | None = None


class Mark(NamedTuple):
    """A place in the values of a group: after the value `seq` of `run`, the `total`-th of the group."""

    run: Run
    seq: int
    total: int

    @classmethod
    def at(cls, last: Publication | None) -> "Mark":
        """Return the mark of a new group, whose channel has this value."""
        return cls(Run("", 1), 0, 0) if last is None else cls(Run(last.epoch, last.seq + 1), last.seq, 0)

    def after(self, values: Iterable[Publication | None]) -> "Mark":
        """Return the mark after some values. None: what was handed over is not a value."""
        run, seq, total = self
        for value in values:
            if value is None:
                continue
            if value.epoch != run.epoch:
                run.last, run.total = seq, total
                if run.next is None:
                    run.next = Run(value.epoch, value.seq)
                run = run.next
            seq, total = value.seq, total + 1
        return Mark(run, seq, total)

    def before(self, values: Iterable[Publication | None]) -> "Mark":
        """Return the mark, moved up to the first of the values that follow it.

        A group with an interval leaves values out. A subscriber that enters between two flushes has the newest one.
        """
        first = next(filter(None, values), None)
        if first is None or first.epoch != self.run.epoch:
            return self
        return Mark(self.run, first.seq - 1, self.total)


class Span:
    """What a connection was sent of one epoch of a channel. `complete`: every message from `first` to `last`."""

    __slots__ = ("complete", "first", "last", "messages")

    def __init__(self, first: int, last: int, messages: int) -> None:
        self.first = first
        self.last = last
        self.messages = messages
        self.complete = messages == last - first + 1

    def add(self, other: "Span") -> None:
        """Add another span, which may begin with values that this one has."""
        meets = other.first <= self.last + 1 and self.first <= other.last + 1
        self.complete = self.complete and other.complete and meets
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.messages += other.messages


Spans = dict[tuple[str, str], Span]
"""Channel and epoch -> what was sent."""


def between(begin: Mark, end: Mark) -> Iterator[tuple[str, Span]]:
    """Return what a group has sent between two marks, by epoch."""
    run, seq, total = begin
    while run is not end.run:
        if run.total > total:
            yield run.epoch, Span(seq + 1, run.last, run.total - total)
        total = run.total
        assert run.next is not None
        run = run.next
        seq = run.first - 1
    if end.total > total:
        yield run.epoch, Span(seq + 1, end.seq, end.total - total)


def add_span(spans: Spans, key: tuple[str, str], span: Span) -> None:
    """Add what was sent of a channel and epoch."""
    known = spans.get(key)
    if known is None and len(spans) >= MAX_SPANS:
        key = REST
        known = spans.get(key)
    if known is None:
        spans[key] = span
    else:
        known.add(span)
