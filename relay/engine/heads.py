"""The heads of the audit logs in the engine: up to which record each log was on the disk.

Somebody who can write a log's file can cut its end off, or remove it, and the hashes of what is left fit. Then the head
is not in the file. A log that ended in order has its head as the last record.

Each node writes the head of its newest checkpoint (`nodes.py`). The heads are kept as long as the log's files.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.audit.chain import Link
from relay.core.errors import MalformedError, Reason, UnavailableError
from relay.engine.options import CONTROL, EngineOptions

WITHOUT_LIMIT_S = 400 * 86_400.0
"""Seconds for which a head is kept if the log's files are never deleted (`audit.keep_days = 0`)."""
_NEARLY_S = 3600.0
"""Seconds before a head's end from which a missing file is no damage: the relay deletes it at about this time."""
_WITHIN_S = 2.0
_STEP = 1000
"""Heads that are read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPosition:
    """How far a node's audit log is.

    `opened` is the last record that was in the file when the process began. `head` is the newest checkpoint since
    then. `place` says where the file is. The head is kept for `keep_s` seconds.
    """

    opened: Link
    head: Link | None = None
    place: str
    keep_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A head that the engine knows. Times are the engine's, in Unix seconds; `now` is when it was read.

    `was_missing`: a process did not find it in its file when it began, and continued the log without it.
    """

    link: Link
    at: float
    until: float
    place: str
    was_missing: bool
    now: float

    @property
    def file(self) -> Path:
        """Where the log is, on its machine."""
        return Path(self.place.partition(":")[2])

    @property
    def is_on_this_machine(self) -> bool:
        """Whether this machine wrote it."""
        return self.place.startswith(f"{socket.gethostname()}:")

    @property
    def file_may_be_deleted(self) -> bool:
        """Whether `audit.keep_days` may have deleted the file."""
        return self.until - self.now < _NEARLY_S


def place_of(path: Path) -> str:
    """Return where a log is: this machine and the path."""
    return f"{socket.gethostname()}:{path.resolve()}"


def kept_s(keep_days: int) -> float:
    """Return for how many seconds a head is kept, for `audit.keep_days`."""
    return keep_days * 86_400.0 or WITHOUT_LIMIT_S


async def read_heads(options: EngineOptions) -> Sequence[KnownHead]:
    """Return all heads that the engine knows.

    Raises:
        UnavailableError: if it does not answer or refuses, or has a head that is none. The text says why.
        ConfigurationError: if redis-py is not installed.
    """
    from relay.engine.connection import EngineError, RefusedError, open_connection

    try:
        connection = await open_connection(options.address, CONTROL)
        try:
            fields: dict[bytes, bytes] = {}
            cursor = b"0"
            # in steps: containers with new volumes leave thousands, and the engine has prices to deliver
            while True:
                scan = ("HSCAN", options.key(CONTROL, "heads"), cursor, "COUNT", _STEP)
                (seconds, micros), found = await connection.run([("TIME",), scan], within_s=_WITHIN_S)
                if isinstance(found, RefusedError):
                    raise found
                cursor, some = found
                fields |= zip(some[::2], some[1::2], strict=True)
                if cursor == b"0":
                    break
        finally:
            await connection.close()
    except EngineError as error:
        raise _unavailable(str(error)) from None
    now = int(seconds) + int(micros) / 1e6
    try:
        return [_head(str(name, "utf-8"), str(value, "utf-8"), now) for name, value in fields.items()]
    except (ValueError, MalformedError):
        key = options.key(CONTROL, "heads")
        raise _unavailable(f"{key} has a head that no relay has written") from None


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError(Reason.STATE_UNAVAILABLE, detail, setting="engine.url")


def _head(name: str, value: str, now: float) -> KnownHead:
    writer, _, missing = name.partition("!")
    seq, digest, at, until, _, place = value.split(" ", 5)
    return KnownHead(
        link=Link.parse(f"{writer}:{seq}:{digest}"),
        at=float(at),
        until=float(until),
        place=place,
        was_missing=bool(missing),
        now=now,
    )
