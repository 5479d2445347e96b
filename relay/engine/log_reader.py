"""Reads a log of the engine: a stream that every node reads from its own position.

Entries have the ids `<generation>-<number>`, and the numbers of a generation count without gaps. So a reader sees by
the ids alone whether it missed something: entries that were trimmed, or a new generation after the engine lost data.
It then begins again from what the engine has now. A broken connection loses nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from relay.core.errors import UnavailableError
from relay.engine.clock_offset import ClockOffset
from relay.engine.connection import Command, EngineConnection, EngineError, RefusedError, open_connection
from relay.engine.options import EngineOptions
from relay.engine.pulse import Pulse
from relay.engine.tasks import LastingTask

BLOCK_MS = 500
"""How long the engine waits for a new entry before it answers that there is none. So a reader hears of the engine at
least twice a second."""
_ANSWER_WITHIN_S = 1.0
_MAX_ENTRIES = 16
"""Entries of one reply: 1.5 MiB at most, because an entry has at most 96 KiB."""
_AGAIN_S = (0.05, 0.5)
"""Shortest and longest wait before another attempt to connect. It doubles with each failure in a row."""
_COMPARE_EVERY_S = 0.5
"""Time between two looks at the newest number while there is always more to read."""
_UNREADABLE_S = 3.0
"""Seconds for which a node is not relied on after an entry that it can't read. Others of the same kind would follow:
the nodes that write them need a moment to learn that this one can't."""

Position = tuple[int, int]
"""A generation, and the number of an entry."""
Fields = Sequence[bytes]
"""The fields of an entry: name and value in turn. A name may come several times. The first name is the number of the
entry's format, with the epoch as its value."""

log = structlog.get_logger("relay.engine")


class UnreadableError(EngineError):
    """An entry has a format that this release does not read."""


class LogReader:
    """Reads the log of a shard until it is closed.

    `begin` is called when the reader does not know where to begin, or has missed something: it returns the position
    from which to read. `accept` gets each later entry with its generation and number. `pulse` is told of each answer,
    and `offset` of the engine's time.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        name: str,
        shard: str,
        begin: Callable[[], Awaitable[Position]],
        accept: Callable[[int, int, Fields], None],
        at: Position | None = None,
        pulse: Pulse | None = None,
        offset: ClockOffset | None = None,
    ) -> None:
        self._address = options.address
        self._formats = options.formats
        self._name = name
        self._shard = shard
        self._log_key = options.key(shard, "l")
        self._life_key = options.key(shard, "e")
        self._begin = begin
        self._accept = accept
        self.position = at
        self.resyncs = 0
        self.behind = 0
        """Entries of the log that this node had not read when it last looked."""
        self._compare_due = 0.0
        self.pulse = pulse or Pulse()
        self._offset = offset
        self._is_asked_again = False
        self._failing = False
        self._unreadable_until = 0.0
        self._began = asyncio.Event()
        if at is not None:
            self._began.set()
        self.task = LastingTask(self._run, name=f"{name}-log", recover=self._recover)

    async def began(self) -> None:
        """Wait until the first `begin` has succeeded."""
        await self._began.wait()

    def begin_again(self) -> None:
        """Call `begin` with the next answer of the engine: this node has something that the engine may not have."""
        self._is_asked_again = True

    def stop(self) -> None:
        """Stop reading. Then call `aclose`."""
        self.task.stop()

    async def aclose(self) -> None:
        """Stop reading, and wait until the connection is closed."""
        await self.task.aclose()

    async def _recover(self, _error: Exception) -> None:
        self._start_again()  # what could not be accepted may be missing now

    async def _run(self) -> None:
        shortest, longest = _AGAIN_S
        pause = shortest
        while True:
            try:
                connection = await open_connection(self._address, self._shard)
                try:
                    pause = shortest
                    await self._read(connection)
                finally:
                    await connection.close()
            except (EngineError, UnavailableError) as error:
                if not self._failing:
                    self._failing = True
                    log.warning("the engine's log can't be read", log=self._name, error=str(error))
                self.pulse.why = str(error)
                await asyncio.sleep(_UNREADABLE_S / 3 if isinstance(error, UnreadableError) else pause)
                pause = min(2 * pause, longest)

    async def _read(self, connection: EngineConnection) -> None:
        is_behind = await self._compare(connection)
        while True:
            if self._is_asked_again:
                self._is_asked_again, self.position = False, None
            if self.position is None:
                self.position = await self._begin()
                self._began.set()
                is_behind = False
            entries = await self._entries(connection, self.position)
            if entries:
                is_behind = not self._take(entries)
            elif is_behind:  # the entries up to the newest number are gone
                self._start_again()
            if not entries or self._must_look_behind(len(entries)):
                is_behind = await self._compare(connection)

    def _must_look_behind(self, read: int) -> bool:
        """Tell whether there may be many more entries, after so many were read."""
        if read < _MAX_ENTRIES:
            self.behind = 0
            return False
        return asyncio.get_running_loop().time() >= self._compare_due

    def _beat(self, *, has_read: bool) -> None:
        """Take the answer of the engine as one after which this node has missed nothing."""
        if self.position is not None and asyncio.get_running_loop().time() >= self._unreadable_until:
            self.pulse.beat()
            if self._failing and has_read:
                self._failing = False
                log.info("the engine's log can be read again", log=self._name)

    async def _entries(self, connection: EngineConnection, position: Position) -> list[Any]:
        generation, number = position
        command = ("XREAD", "COUNT", _MAX_ENTRIES, "BLOCK", BLOCK_MS, "STREAMS", self._log_key)
        (reply,) = await self._ask(connection, (*command, f"{generation}-{number}"))
        self._beat(has_read=True)
        return reply[0][1] if reply else []

    def _take(self, entries: list[Any]) -> bool:
        """Pass the entries on in order. False: one is missing, and nothing after it was passed on."""
        for entry_id, fields in entries:
            assert self.position is not None
            generation, number = self.position
            found_generation, _, found_number = entry_id.partition(b"-")
            if (int(found_generation), int(found_number)) != (generation, number + 1):
                self._start_again()
                return False
            self._check_format(fields)
            self.position = (generation, number + 1)
            self._accept(generation, number + 1, fields)
        return True

    def _check_format(self, fields: Fields) -> None:
        formats, found = self._formats, fields[0].decode(errors="replace")
        if found.isdigit() and formats.reads(int(found)):
            return
        self.pulse.fault = (
            f"The log of {self._name} has entries of the format {found}, and this release reads {formats}: another "
            "node has a newer release. Upgrade this one."
        )
        self._unreadable_until = asyncio.get_running_loop().time() + _UNREADABLE_S
        self._start_again()
        raise UnreadableError(self.pulse.fault)

    async def _compare(self, connection: EngineConnection) -> bool:
        """Compare the position with the engine's, and start again if it is of another life. True: there is more.

        The third command writes nothing, but a server that must not write refuses it: a replica, or a master that was
        cut off from its replicas (`min-replicas-to-write`). Another server may be the master by then, and what it is
        told is not in this log.
        """
        asked_at = self._offset.now() if self._offset is not None else 0.0
        (generation, number), now, _ = await self._ask(
            connection,
            ("HMGET", self._life_key, "g", "b"),
            ("TIME",),
            ("HDEL", self._life_key, "no field"),
        )
        self._compare_due = asyncio.get_running_loop().time() + _COMPARE_EVERY_S
        if self._offset is not None:
            self._offset.sample(asked_at, int(now[0]) + int(now[1]) / 1e6)
        if self.position is None:
            return False
        newest = (int(generation or 0), int(number or 0))
        if newest == self.position:  # else this node has to read first what it missed
            self._beat(has_read=False)
        self.behind = max(0, newest[1] - self.position[1]) if newest[0] == self.position[0] else 0
        if newest[0] != self.position[0] or newest[1] < self.position[1]:
            self._start_again()
        return newest > self.position if self.position is not None else False

    def _start_again(self) -> None:
        self.position = None
        self.resyncs += 1

    async def _ask(self, connection: EngineConnection, *commands: Command) -> list[Any]:
        replies = await connection.run(commands, within_s=_ANSWER_WITHIN_S)
        for reply in replies:
            if isinstance(reply, RefusedError):
                raise reply
        return replies
