"""The broker of several nodes: publications are numbered in the engine and read from its log by every node.

A channel belongs to a shard. On one server there is one, in a cluster there are several. Each shard has its own
numbering, its own log and its own epoch.

Items go in batches to one script. A batch has a number of its node, so that one whose reply was lost is sent again and
gets the reply of then: its positions stay, and nothing is numbered twice. Between a batch and the next, the order is
that of the callers.

After a gap, such as entries that the log has no longer or a new epoch, the node takes the last values as the engine has
them now, and forgets the channels that were removed.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import Any

from relay.broker.base import Dropped, Loaded, Outcome, Position, Receiver
from relay.core.errors import MalformedError, Reason, UnavailableError
from relay.core.publications import Draft, Publication
from relay.core.sequencer import Drop, too_many_channels
from relay.engine.batches import Batches
from relay.engine.connection import RefusedError
from relay.engine.line import Line
from relay.engine.log_reader import Fields, LogReader
from relay.engine.log_reader import Position as LogPosition
from relay.engine.options import EngineOptions
from relay.engine.pulse import Pulse
from relay.engine.scripts import script
from relay.engine.shards import place
from relay.engine.tasks import close_all

_ANSWER_WITHIN_S = 2.0
"""Seconds after which a publisher is told that it is unknown whether its message was published. Nothing waits longer
on a node: a price of three seconds ago is worse than none."""
_PER_READ = 128
"""Last values, or entries of a history, in one reply. It has 8 MiB at most: while the engine copies it, claims wait."""
_KNOWN_CHANNELS = 65_536
"""Channels of which it is remembered what is kept of them: matching the patterns takes longer than the rest."""
_DROPS = {"s": Drop.STALE, "d": Drop.DUPLICATE}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHistory:
    """The history that the engine keeps of a channel. None: `messages` is 0."""

    messages: int = 0
    seconds: float = 0.0

    @property
    def as_argument(self) -> str:
        """What the script is told."""
        return f"{self.messages} {int(self.seconds * 1000)}" if self.messages else ""


_Item = tuple[str, str, str, bytes | str, str, str, str]
"""The arguments of the script for an item: kind, channel, times, data, version, key, history (`lua/publish.lua`)."""


class Shard:
    """The channels of a shard: what `EngineBroker` is to all channels. `number` is its place among the shards."""

    def __init__(
        self,
        options: EngineOptions,
        name: str,
        *,
        number: int,
        max_channels: int,
        history_of: Callable[[str], KeptHistory],
        steady: Callable[[], float],
    ) -> None:
        self.name = name
        self.epoch = ""
        self.channels: set[str] = set()
        """The channels that this node knows of this shard."""
        self.elsewhere: Callable[[], int] = lambda: 0
        """Returns how many channels other shards have: they count for `max_channels`."""
        self.log_format = options.formats.oldest
        self.pulse = Pulse(steady)
        self._options = options
        self._number = number
        self._max_channels = max_channels
        self._history = lru_cache(_KNOWN_CHANNELS)(lambda channel: history_of(channel).as_argument)
        self._node = secrets.token_hex(8)
        self._batch = 0
        self._generation = 0
        self._keys = [options.key(name, part) for part in ("e", "q", "v", "n", "m", "l")]
        self._history_prefix = options.key(name, "h:")
        self._key_prefix = options.key(name, "i:")
        self._line = Line(
            options,
            name,
            name="broker",
            answer_within_s=_ANSWER_WITHIN_S,
            reason=Reason.BROKER_UNAVAILABLE,
        )
        self._batches: Batches[_Item, Any] = Batches(
            self._send,
            name="publications",
            answer_within_s=_ANSWER_WITHIN_S,
            failed=_unavailable,
        )
        self._receiver: Receiver | None = None
        self._reader: LogReader | None = None
        self._old_readers: list[LogReader] = []
        self._delivered: dict[str, Publication] = {}
        """The newest publication of each channel that the receiver was given."""
        self._delay_s: float | None = None

    def update(self, *, max_channels: int) -> None:
        """Use another bound from now on. Channels that exist stay."""
        self._max_channels = max_channels

    @property
    def restarts(self) -> int:
        """How often a task of this broker failed and was started again."""
        readers = self._reader.task.restarts if self._reader is not None else 0
        return self._line.task.restarts + self._batches.task.restarts + readers

    @property
    def generation(self) -> int:
        """The generation of the log."""
        return self._generation

    @property
    def resyncs(self) -> int:
        """How often the last values were read again because something was missed."""
        return 0 if self._reader is None else self._reader.resyncs

    @property
    def behind(self) -> int:
        """Entries of the log that this node had not read when it last looked."""
        return 0 if self._reader is None else self._reader.behind

    def take_delay_s(self) -> float | None:
        """See `EngineBroker.take_delay_s`."""
        delay_s, self._delay_s = self._delay_s, None
        return delay_s

    def publish(self, draft: Draft, *, ts: int) -> "asyncio.Future[Outcome]":
        """See `Broker.publish`."""
        return self._batches.submit(
            (
                "p",
                draft.channel,
                f"{ts} -" if draft.source_ts is None else f"{ts} {draft.source_ts}",
                bytes(draft.data),
                "" if draft.version is None else f"{draft.version_epoch or 0} {draft.version}",
                draft.idempotency_key or "",
                self._history(draft.channel),
            ),
            len(draft.data),
        )

    def alive(self, channel: str, *, ts: int) -> "asyncio.Future[Position]":
        """See `Broker.alive`."""
        return self._batches.submit(_item("a", channel, times=str(ts)))

    async def reset(self, channel: str) -> bool:
        """See `Broker.reset`."""
        return bool(await self._batches.submit(_item("r", channel)))

    async def remove(self, channel: str, *, at: Position | None = None) -> bool:
        """See `Broker.remove`."""
        expected = "" if at is None else f"{at.epoch} {at.seq}"
        return bool(await self._batches.submit(_item("x", channel, data=expected)))

    async def load(self) -> Loaded:
        """See `Broker.load`."""
        while True:
            generation, number, epoch = await self._call_load()
            values: dict[str, bytes] = {}
            cursor: bytes | int = 0
            while True:
                cursor, pairs = await self._line.read("HSCAN", self._keys[2], cursor, "COUNT", _PER_READ)
                values |= {name.decode(): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}
                if int(cursor) == 0:
                    break
            later_generation, later_number, _ = await self._call_load()
            if later_generation == generation:  # else the values may be of two lives
                self.epoch, self.channels = epoch, set(values)
                loaded = [_publication(name, value, entry=later_number) for name, value in values.items()]
                return Loaded(values=loaded, delivery_position=f"{generation}-{number}")

    async def history(self, channel: str, *, after: Position) -> Sequence[Publication] | None:
        """See `Broker.history`."""
        found: list[Publication] = []
        key, last = self._history_prefix + channel, f"{after.seq}-0"
        while entries := await self._line.read("XRANGE", key, f"({last}", "+", "COUNT", _PER_READ):
            found += [_publication(channel, fields[1]) for _, fields in entries]
            if len(entries) < _PER_READ:
                break
            last = entries[-1][0].decode()
        wanted = range(after.seq + 1, after.seq + 1 + len(found))
        whole = [(one.epoch, one.seq) for one in found] == [(after.epoch, seq) for seq in wanted]
        return found if found and whole else None

    def attach(self, receiver: Receiver, *, after: str) -> None:
        """See `Broker.attach`."""
        generation, _, number = after.partition("-")
        if self._reader is not None:
            self._reader.stop()
            self._old_readers.append(self._reader)
        self._receiver = receiver
        self._delivered = {}
        receiver.delivered(int(number), self.epoch, log=self._number)
        self._reader = LogReader(
            self._options,
            name="publications",
            shard=self.name,
            begin=self._resync,
            accept=self._accept,
            at=(int(generation), int(number)),
            pulse=self.pulse,
        )

    async def aclose(self) -> None:
        """Close the connections. What waits is not published."""
        readers = [reader.aclose for reader in (*self._old_readers, self._reader) if reader is not None]
        await close_all(*readers, self._batches.aclose, self._line.aclose)

    # to the engine

    async def _send(self, items: Sequence[_Item]) -> Sequence[Outcome | bool | MalformedError]:
        self._batch += 1
        arguments: list[Any] = [
            *(self._generation, secrets.token_urlsafe(6), self._node, self._batch),
            *(
                self._max_channels - self.elsewhere(),
                self._options.log_bytes,
                self._history_prefix,
                self._key_prefix,
            ),
            self.log_format,
            *chain.from_iterable(items),
        ]
        try:
            reply = (await self._line.call(script("publish"), self._keys, arguments)).decode()
        except RefusedError as error:
            raise _unavailable(str(error)) from None
        except UnavailableError as error:
            raise _unavailable(f"{error} It is unknown whether this was published.") from None
        generation, _, epoch, answers = reply.split(" ")
        self._seen(int(generation), epoch)
        return [
            self._outcome(item[0], epoch, answer)
            for item, answer in zip(items, answers.split(","), strict=True)
        ]

    def _outcome(self, kind: str, epoch: str, answer: str) -> Outcome | bool | MalformedError:
        if kind in ("r", "x"):
            return answer == "1"
        if answer.isdecimal():  # nearly all
            return Position(epoch=epoch, seq=int(answer))
        if answer == "f":
            return too_many_channels(self._max_channels)
        return Dropped(why=_DROPS[answer[0]], position=Position(epoch=epoch, seq=int(answer[1:])))

    async def _call_load(self) -> tuple[int, int, str]:
        arguments: list[Any] = [self._generation, secrets.token_urlsafe(6)]
        try:
            generation, number, epoch = await self._line.call(script("load"), self._keys, arguments)
        except RefusedError as error:
            raise _unavailable(str(error)) from None
        self._seen(int(generation), epoch.decode())
        return int(generation), int(number), epoch.decode()

    def _seen(self, generation: int, epoch: str) -> None:
        if generation >= self._generation:
            self._generation, self.epoch = generation, epoch

    # from the log

    async def _resync(self) -> LogPosition:
        while (position := await self._take_over()) is None:
            pass
        return position

    async def _take_over(self) -> LogPosition | None:
        """Give the receiver the values of now, and what it missed of their history. None: do it again."""
        loaded = await self.load()
        generation, _, number = loaded.delivery_position.partition("-")
        names = {publication.channel for publication in loaded.values}
        for name in [name for name in self._delivered if name not in names]:
            self._removed(name)
        for publication in loaded.values:
            before = self._delivered.get(publication.channel)
            if before is not None and before.epoch == publication.epoch and publication.seq > before.seq + 1:
                after = Position(epoch=before.epoch, seq=before.seq)
                missed = await self.history(publication.channel, after=after)
                if missed is None and not await self._still_has(publication):
                    return None
                for one in missed or ():
                    self._deliver(one)
            self._deliver(publication)
        assert self._receiver is not None
        self._receiver.delivered(int(number), self.epoch, log=self._number)
        return int(generation), int(number)

    async def _still_has(self, publication: Publication) -> bool:
        """Tell whether the engine has this value or a later one of its epoch. Else its history is gone too."""
        value = await self._line.read("HGET", self._keys[2], publication.channel)
        if value is None:
            return False
        now = _publication(publication.channel, value)
        return now.epoch == publication.epoch and now.seq >= publication.seq

    def _accept(self, generation: int, number: int, fields: Fields) -> None:
        assert self._receiver is not None
        epoch = fields[1].decode()
        self._seen(generation, epoch)
        newest_ms = 0
        for index in range(2, len(fields), 2):
            kind, value = fields[index], fields[index + 1]
            if kind == b"p":
                name, seq, ts, source_ts, data = value.split(b" ", 4)
                publication = _numbered(name.decode(), epoch, (seq, ts, source_ts, data), entry=number)
                newest_ms = publication.ts
                self._deliver(publication)
            elif kind == b"a":
                name, _, ts = value.partition(b" ")
                self._receiver.alive(name.decode(), ts=int(ts))
            elif kind == b"x":
                self._removed(value.decode())
        if newest_ms:
            self._delay_s = max(self._delay_s or 0.0, time.time() - newest_ms / 1000)
        self._receiver.delivered(number, epoch, log=self._number)

    def _deliver(self, publication: Publication) -> None:
        """Deliver what is not a repetition. The hub drops these too, but not what comes after a removal."""
        assert self._receiver is not None
        before = self._delivered.get(publication.channel)
        if before is not None and before.epoch == publication.epoch and publication.seq <= before.seq:
            return
        self.channels.add(publication.channel)
        self._delivered[publication.channel] = publication
        self._receiver.publish(publication)

    def _removed(self, name: str) -> None:
        assert self._receiver is not None
        self.channels.discard(name)
        self._delivered.pop(name, None)
        self._receiver.remove(name)


class EngineBroker:
    """A `Broker` in Redis or Valkey. Close it with `aclose`. `history_of` tells what is kept of a channel."""

    def __init__(
        self,
        options: EngineOptions,
        *,
        max_channels: int,
        history_of: Callable[[str], KeptHistory] = lambda _channel: KeptHistory(),
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shards = [
            Shard(
                options, name, number=number, max_channels=max_channels, history_of=history_of, steady=steady
            )
            for number, name in enumerate(options.shards("t"))
        ]
        for shard in self.shards:
            shard.elsewhere = partial(self._channels_elsewhere, shard)

    def update(self, *, max_channels: int) -> None:
        """Use another bound from now on. Channels that exist stay."""
        for shard in self.shards:
            shard.update(max_channels=max_channels)

    @property
    def epoch(self) -> str:
        """See `Broker.epoch`. It is another one when that of a shard is, and the same on every node."""
        if len(self.shards) == 1:
            return self.shards[0].epoch
        epochs = " ".join(shard.epoch for shard in self.shards)
        return hashlib.sha256(epochs.encode()).hexdigest()[:12]

    @property
    def silent_s(self) -> float:
        """Seconds since the reader of a log had an answer: the one that has waited longest."""
        return max(shard.pulse.silent_s for shard in self.shards)

    @property
    def log_format(self) -> int:
        """The format of the entries that this node writes into the logs."""
        return self.shards[0].log_format

    @log_format.setter
    def log_format(self, number: int) -> None:
        for shard in self.shards:
            shard.log_format = number

    @property
    def behind(self) -> int:
        """Entries of the logs that this node had not read when it last looked."""
        return sum(shard.behind for shard in self.shards)

    def take_delay_s(self) -> float | None:
        """Return the longest time since the last call from accepting a publication, on any node, to reading it here.

        None if there was no publication. Clocks of two machines that differ make it wrong by that.
        """
        return max(
            (delay_s for shard in self.shards if (delay_s := shard.take_delay_s()) is not None), default=None
        )

    @property
    def restarts(self) -> int:
        """How often a task of this broker failed and was started again."""
        return sum(shard.restarts for shard in self.shards)

    @property
    def generation(self) -> int:
        """The highest generation of a log."""
        return max(shard.generation for shard in self.shards)

    @property
    def resyncs(self) -> int:
        """How often last values were read again because something was missed."""
        return sum(shard.resyncs for shard in self.shards)

    def publish(self, draft: Draft, *, ts: int) -> "asyncio.Future[Outcome]":
        """See `Broker.publish`."""
        return self._shard(draft.channel).publish(draft, ts=ts)

    def alive(self, channel: str, *, ts: int) -> "asyncio.Future[Position]":
        """See `Broker.alive`."""
        return self._shard(channel).alive(channel, ts=ts)

    async def reset(self, channel: str) -> bool:
        """See `Broker.reset`."""
        return await self._shard(channel).reset(channel)

    async def remove(self, channel: str, *, at: Position | None = None) -> bool:
        """See `Broker.remove`."""
        return await self._shard(channel).remove(channel, at=at)

    async def load(self) -> Loaded:
        """See `Broker.load`."""
        loaded = await asyncio.gather(*(shard.load() for shard in self.shards))
        return Loaded(
            values=[value for one in loaded for value in one.values],
            delivery_position=" ".join(one.delivery_position for one in loaded),
        )

    async def history(self, channel: str, *, after: Position) -> Sequence[Publication] | None:
        """See `Broker.history`."""
        return await self._shard(channel).history(channel, after=after)

    def attach(self, receiver: Receiver, *, after: str) -> None:
        """See `Broker.attach`."""
        for shard, position in zip(self.shards, after.split(" "), strict=True):
            shard.attach(receiver, after=position)

    async def aclose(self) -> None:
        """Close the connections. What waits is not published."""
        await close_all(*(shard.aclose for shard in self.shards))

    def _channels_elsewhere(self, shard: Shard) -> int:
        return sum(len(other.channels) for other in self.shards if other is not shard)

    def _shard(self, channel: str) -> Shard:
        shards = self.shards
        return shards[0] if len(shards) == 1 else shards[place(channel, len(shards))]


def _item(kind: str, channel: str, *, times: str = "", data: str = "") -> _Item:
    return kind, channel, times, data, "", "", ""


def _publication(channel: str, value: bytes, *, entry: int = 0) -> Publication:
    epoch, *numbered = value.split(b" ", 4)
    return _numbered(channel, epoch.decode(), numbered, entry=entry)


def _numbered(channel: str, epoch: str, numbered: Sequence[bytes], *, entry: int) -> Publication:
    seq, ts, source_ts, data = numbered
    return Publication(
        channel=channel,
        epoch=epoch,
        seq=int(seq),
        ts=int(ts),
        data=data,
        source_ts=None if source_ts == b"-" else int(source_ts),
        entry=entry,
    )


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError(Reason.BROKER_UNAVAILABLE, detail, setting="engine.url")
