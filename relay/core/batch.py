"""The batch of a flush: what it writes to each subscriber, gathered from the queues of the interval groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from relay.core.channels import Channel, Group, QueuedFrame
from relay.core.subscribers import Subscriber


@final
@dataclass(slots=True)
class Chunk:
    """What one flush writes of one channel: `count` values in `data`.

    `generation` is the channel's generation that the subscriber knew before it.
    """

    channel: Channel
    generation: int
    data: bytes
    count: int


Chunks = Chunk | list[Chunk]
Batch = dict[Subscriber, Chunks]
"""What the running flush still has to write. Most subscribers have one chunk, which all of them share."""


def gather(groups: Iterable[Group], batch: Batch) -> Batch:
    """Drain the queues of `groups`, and return what each subscriber gets, added to what `batch` already holds."""
    for group in groups:
        before, queue = group.drain()
        chunk = _chunk(group.channel, before, queue)
        if not batch:
            batch = dict.fromkeys(group.subscribers, chunk)  # a loop in C; by far the most common case
        else:
            for subscriber in group.subscribers:
                _add(batch, subscriber, chunk)
        if group.joining:
            for subscriber, contained in group.joining.items():
                group.subscribers[subscriber] = None
                if later := [queued for queued in queue if queued.number > contained]:
                    _add(batch, subscriber, _chunk(group.channel, before, later))
            group.joining.clear()
        group.delete_if_empty()
    return batch


def _chunk(channel: Channel, generation: int, queue: Sequence[QueuedFrame]) -> Chunk:
    data = queue[0].frame if len(queue) == 1 else b"".join([queued.frame for queued in queue])
    return Chunk(channel, generation, data, sum([queued.is_value for queued in queue]))


def _add(batch: Batch, subscriber: Subscriber, chunk: Chunk) -> None:
    chunks = batch.get(subscriber)
    if chunks is None:
        batch[subscriber] = chunk
    elif type(chunks) is Chunk:
        batch[subscriber] = [chunks, chunk]
    else:
        chunks.append(chunk)


def as_list(chunks: Chunks) -> list[Chunk]:
    """Return one chunk or several as a list."""
    return [chunks] if type(chunks) is Chunk else chunks
