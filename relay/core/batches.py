"""What one flush has to write: for each subscriber, the pieces of the channels that it gets.

Nearly always all subscribers of a channel get the same piece, so it is made once and shared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from relay.core.channels import Entry, Feed, Group
from relay.core.subscribers import Subscriber


@final
@dataclass(slots=True)
class Piece:
    """What one flush writes of one channel: `count` values in `data`. `generation` is that of the value before."""

    feed: Feed
    generation: int
    data: bytes
    count: int


Held = Piece | list[Piece]
Batch = dict[Subscriber, Held]


def gather(groups: Iterable[Group], batch: Batch) -> Batch:
    """Take what is pending in `groups` and return it by subscriber, together with what `batch` holds already."""
    for group in groups:
        before, entries = group.take()
        piece = _piece(group.feed, before, entries)
        if not batch:
            batch = dict.fromkeys(group.subscribers, piece)  # in C: the most common case by far
        else:
            for subscriber in group.subscribers:
                _put(batch, subscriber, piece)
        if group.joining:
            for subscriber, contained in group.joining.items():
                group.subscribers[subscriber] = None
                if rest := [entry for entry in entries if entry.number > contained]:
                    _put(batch, subscriber, _piece(group.feed, before, rest))
            group.joining.clear()
        group.forget_if_empty()
    return batch


def pieces_of(held: Held) -> list[Piece]:
    """Return what a batch holds for one subscriber as a list."""
    return [held] if type(held) is Piece else held


def _piece(feed: Feed, before: int, entries: Sequence[Entry]) -> Piece:
    data = entries[0].frame if len(entries) == 1 else b"".join([entry.frame for entry in entries])
    return Piece(feed, before, data, sum([entry.is_value for entry in entries]))


def _put(batch: Batch, subscriber: Subscriber, piece: Piece) -> None:
    held = batch.get(subscriber)
    if held is None:
        batch[subscriber] = piece
    elif type(held) is Piece:
        batch[subscriber] = [held, piece]
    else:
        held.append(piece)
