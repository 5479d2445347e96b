"""The broker port: it numbers publications and delivers them to every node.

Each node keeps the last values and the history in its hub, as a cache: the hub answers subscribers without waiting.
The broker has the original, for a node that starts, that lost its connection, or whose history is too short.

Every adapter gives these guarantees, and the contract tests check them:

- Epoch. An epoch is the life of one sequencer. A broker may have several, each for its own channels. A new epoch begins
  when numbers may have been lost: numbers then start again at 1, and publications of the old epoch may be gone. An old
  epoch never comes back.
- Order. Within an epoch, `seq` counts a channel's publications without gaps. The first one has a number above those of
  all channels that were removed before, or 1. A receiver gets the publications of a channel in the order of `seq`.
  Calls of `publish` on one node are numbered in the order of the calls: a caller need not await one before the next.
  There is no order between channels.
- Removal. A removed channel has no value, no history, no versions and no keys, and counts no longer as a channel. Each
  receiver is told, in the channel's order: no earlier publication of the channel comes after it.
- At least once. After a reconnect a receiver may get publications again. It drops them by epoch and `seq`. The first
  publication of a channel that a receiver gets may have any `seq`.
- Position. `load` returns every channel's last value, and the delivery position at which they were read. A receiver
  that takes these values and is then attached after this position misses no publication that was made later.
- Numbered before delivered. The answer of `publish` is there when the publication has its number, is kept as the last
  value of its channel and is handed over for delivery. It does not wait until a receiver has it.
- No duplicates. A publication is dropped if its `version` is not newer than the channel's newest, or if its
  `idempotency_key` was seen on the channel lately. It gets no number, is not delivered and is no sign of life
  (`relay.core.sequencer`).
- Signs of life reach every node and may overtake publications. They do not create a channel.
- The receiver is called on the event loop's thread, one call at a time.
"""

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from relay.core.publications import Draft, Publication
from relay.core.sequencer import Drop


class Receiver(Protocol):
    """The hub of one node, as the broker uses it. The broker ignores what the calls return."""

    def publish(self, publication: Publication) -> object:
        """Accept a publication."""
        ...

    def alive(self, channel: str, *, ts: int) -> object:
        """Accept a sign of life of a channel's publisher, at `ts` in Unix ms."""
        ...

    def remove(self, name: str, /) -> object:
        """Forget a channel with its value and its history."""
        ...

    def delivered(self, entry: int, epoch: str, *, log: int = 0) -> object:
        """Record that everything up to an entry of a log has been passed on. A broker may have none, or several."""
        ...


class Position(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The position of a publication in its channel: the sequencer's epoch, and its number."""

    epoch: str
    seq: int


class Dropped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome for a repeated or outdated publication, and why it was dropped.

    `position` is that of the first publication with the same key, or of the channel's newest publication.
    """

    why: Drop
    position: Position


Outcome = Position | Dropped

Value = TypeVar("Value")


class Ready(Generic[Value]):
    """An answer that is known at once. It has the methods of a future that its callers use."""

    __slots__ = ("_value",)

    def __init__(self, value: Value) -> None:
        self._value = value

    def done(self) -> bool:
        """Return True."""
        return True

    def result(self) -> Value:
        """Return the answer."""
        return self._value

    def __await__(self) -> Generator[None, None, Value]:
        """Return the answer without waiting."""
        return self._value
        yield  # makes this a generator


Answer = Ready[Value] | asyncio.Future[Value]
"""The answer to a call that is already on its way. Await it for the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Every channel's last value, and the delivery position at which they were read.

    Only the adapter reads `delivery_position`. It differs between two calls of `load` if a publication was made in
    between. A dropped publication does not move it.
    """

    values: Sequence[Publication]
    delivery_position: str


class Broker(Protocol):
    """Numbers publications and delivers them to the receiver of every node."""

    @property
    def epoch(self) -> str:
        """The current epoch."""
        ...

    def publish(self, draft: Draft, *, ts: int) -> Answer[Outcome]:
        """Number one publication and hand it over for delivery. `ts` is the time of ingest in Unix ms.

        The errors are raised at once or by the answer.

        Raises:
            UnavailableError: if the broker did not answer. It is then unknown whether the publication was stored and
                delivered. With a version or an idempotency key, a retry is safe.
            MalformedError: if the channel is new and no more channels are allowed.
        """
        ...

    def alive(self, channel: str, *, ts: int) -> Answer[Position]:
        """Tell every node that a channel's value is unchanged.

        The answer is the position of the channel's newest publication, with `seq` 0 if there is none.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        ...

    async def reset(self, channel: str) -> bool:
        """Forget the versions and keys of a channel. Its numbers go on. False: the channel has no publication.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        ...

    async def remove(self, channel: str, *, at: Position | None = None) -> bool:
        """Forget a channel, and tell every node. With `at`: only if that is the position of its newest publication.

        So a channel whose publisher comes back at this moment is not removed. False: nothing was removed.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        ...

    async def load(self) -> Loaded:
        """Return every channel's last value. A node calls this when it starts, and again when it may have a gap.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        ...

    async def history(self, channel: str, *, after: Position) -> Sequence[Publication] | None:
        """Return all publications of a channel after a position, in order. None: not all of them are kept.

        A part is never returned. Call this before `Hub.subscribe`, and only if the hub's own history does not reach
        back to the position.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        ...

    def attach(self, receiver: Receiver, *, after: str) -> None:
        """Deliver to this node's only receiver what was published after a delivery position of `load`."""
        ...
