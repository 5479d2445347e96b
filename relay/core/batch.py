"""The batch of a flush: what it writes to each subscriber, gathered from the queues of the interval groups.

Subscribers with a `Pack` get what an interval's flush has for them as one message. Those that get the same chunks share
it: it is packed once for all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from relay.core.channels import Channel, Group, QueuedFrame
from relay.core.positions import Positions
from relay.core.sent import Mark
from relay.core.subscribers import Pack, Subscriber

SMALL_GROUP = 8
"""A group has few subscribers if the batch has so many times as many."""
ADDED_A_WRITE = 16
"""Chunks that are added for each write of a slice, at most: adding one takes a twentieth of a write."""


@final
@dataclass(slots=True, eq=False)  # compared and hashed by identity, as keys of `share`
class Chunk:
    """What one flush writes of one channel: `count` values in `data`.

    `generation` is the channel's generation that the subscriber knew before it. `before` and `after` are the group's
    marks. `plain` is `data` without ids.
    """

    channel: Channel
    generation: int
    data: bytes
    count: int
    before: Mark
    after: Mark
    plain: bytes

    def without_ids(self) -> "Chunk":
        """Return it for a subscriber that still has to get something from before it."""
        return self if self.plain is self.data else replace(self, data=self.plain)


@final
class SharedChunks(list[Chunk]):
    """The chunks that `readers` subscribers get, and the `data` that is written to each: empty until `pack`."""

    __slots__ = ("_pack", "data", "readers", "values")

    def __init__(self, chunks: Iterable[Chunk], pack: Pack) -> None:
        super().__init__(chunks)
        self._pack = pack
        self.readers = 0
        self.values = sum([chunk.count for chunk in self])
        self.data = b""

    def pack(self) -> bool:
        """Make `data`. Return False if that is the frames as they are, because they were not packed."""
        frames = b"".join([chunk.data for chunk in self])
        packed = self._pack(frames, self.readers)
        self.data = packed or frames
        return packed is not None


Chunks = Chunk | list[Chunk]
Batch = dict[Subscriber, Chunks]
"""What the running flush still has to write. Most subscribers have one chunk, which all of them share."""


def gather(groups: Iterable[Group], batch: Batch, positions: Positions) -> Batch:
    """Drain the queues of `groups`, and return what each subscriber gets, added to what `batch` already holds.

    Values are numbered in the order in which every subscriber gets them.
    """
    for group in groups:
        mark = group.mark
        before, queue = group.drain()
        chunk = _chunk(group.channel, before, queue, mark, group.mark)
        if group.add_id is not None:
            chunk.data = b"".join([_with_id(queued, group.add_id, positions) for queued in queue])
        if not batch:
            batch = dict.fromkeys(group.subscribers, chunk)  # a loop in C; by far the most common case
        else:
            _add(batch, group.subscribers, chunk)
        if group.joining:
            # Its snapshots may have values of other channels that are numbered higher. So these have no ids.
            for subscriber, contained in group.joining.items():
                later = [queued for queued in queue if queued.number > contained]
                entered = mark.after(queued.publication for queued in queue if queued.number <= contained)
                entered = entered.before(queued.publication for queued in later)
                group.subscribers[subscriber] = entered
                if later:
                    _add(batch, (subscriber,), _chunk(group.channel, before, later, entered, group.mark))
            group.joining.clear()
        group.delete_if_empty()
    return batch


def are_few(groups: Iterable[Group], batch: Batch, max_writes: int) -> bool:
    """Tell whether `groups` are cheap to add to a batch that is being written.

    A subscriber that the flush has not reached yet then gets their values with the same write. Without this, values
    wait for the whole flush and the rest after it. But what many subscribers share costs less as one chunk of the next
    flush, and so does a channel that publishes more often than flushes begin.
    """
    readers = [len(group.subscribers) for group in groups]
    return max(readers, default=0) * SMALL_GROUP <= len(batch) and sum(readers) <= ADDED_A_WRITE * max_writes


def _chunk(
    channel: Channel, generation: int, queue: Sequence[QueuedFrame], before: Mark, after: Mark
) -> Chunk:
    data = queue[0].frame if len(queue) == 1 else b"".join([queued.frame for queued in queue])
    count = sum([queued.value is not None for queued in queue])
    return Chunk(channel, generation, data, count, before, after, data)


def _with_id(queued: QueuedFrame, add_id: Callable[[bytes, bytes], bytes], positions: Positions) -> bytes:
    if queued.value is None:
        return queued.frame
    queued.value.position, position = positions.next()
    return add_id(position, queued.frame)


def _add(batch: Batch, subscribers: Iterable[Subscriber], chunk: Chunk) -> None:
    find = batch.get
    for subscriber in subscribers:
        chunks = find(subscriber)
        if chunks is None:
            batch[subscriber] = chunk
        elif type(chunks) is list:
            chunks.append(chunk)
        else:  # one chunk, or chunks that others share
            batch[subscriber] = [*as_list(chunks), chunk]


def share(batch: Batch, packing: Mapping[Subscriber, Pack]) -> None:
    """Let those of the subscribers in `packing` that get the same chunks share them.

    The chunks themselves are the key. So what is packed together goes as a whole to each of its readers, and nothing of
    another channel is in it.
    """
    sets: dict[tuple[Chunk, ...], SharedChunks] = {}
    for subscriber, pack in packing.items():
        chunks = batch.get(subscriber)
        if chunks is not None:
            key = tuple(as_list(chunks))
            shared = sets.get(key)
            if shared is None:
                shared = sets[key] = SharedChunks(key, pack)
            shared.readers += 1
            batch[subscriber] = shared


def as_list(chunks: Chunks) -> list[Chunk]:
    """Return one chunk or several as a list."""
    return [chunks] if type(chunks) is Chunk else chunks
