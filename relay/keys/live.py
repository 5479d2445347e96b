"""The keys of a running relay: what its folder says, within a second of the folder's saying so.

The folder is looked at twice a second. A signal would be quicker and is worse: it needs the process's number, which
whoever mounts a secret into a container does not have, and one that is lost leaves a stolen key in use. Files are
compared by name, time, size and inode, in a thread, because a folder on a network may take its time.

A look must never make things worse. A folder that can't be read leaves all as it was; a file that is broken leaves
its own key as it was and no other, so that a mistake in one file can't keep a revoked key alive. What can't be read
is said once in the log, and tried again each time.

The swap itself is one assignment on the event loop: a token is signed and checked with one ring or the next one.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.core.jws import VerifyKey
from relay.core.tokens import SigningKey
from relay.keys.files import each_record, key_names, load_keys, load_records
from relay.keys.life import KeyRecord, KeyRing, KeyState, ring_at

LOOK_EVERY_S: Final = 0.5
"""A revoked key has to be refused within a second."""

_Seen = frozenset[tuple[str, int, int, int]]

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """What a look found changed: which key signs now (None: none can), which are known new, and which are gone and why.

    `why` is "retired", "revoked", or "removed" where the files are gone.
    """

    signing: str | None
    published: tuple[str, ...]
    dropped: Mapping[str, str]


class LiveKeys:
    """A folder's keys as they are now. `watch` keeps them so; without it they are what they were at the start."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the folder. `clock` gives Unix seconds and decides when the next key signs.

        Raises:
            ConfigurationError: as `load_keys` does.
        """
        self._folder = folder
        self._clock = clock
        self._seen: _Seen | None = None  # not before a look: what changes while we start must be seen
        self._failure = ""
        self.ring: KeyRing = load_keys(folder, now=clock())
        self._records = {record.kid: record for record in load_records(folder)}

    async def keys_for(self, _token: str) -> Mapping[str, VerifyKey]:
        """See `KeySource.keys_for`."""
        return self.ring.verify

    def is_revoked(self, kid: str) -> bool:
        """See `KeySource.is_revoked`."""
        record = self._records.get(kid)
        return record is not None and record.ended is KeyState.REVOKED

    def signing_key(self) -> SigningKey:
        """Return the key to sign with now.

        Raises:
            UnavailableError: if there is none any more.
        """
        if self.ring.signing is None:
            raise UnavailableError(Reason.KEYS_UNAVAILABLE, f"No key in {self._folder} may sign.")
        return self.ring.signing

    async def watch(self, on_change: Callable[[KeyChange], None]) -> None:
        """Look at the folder for ever, and tell what changes."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            change = await self.look()
            if change is not None:
                on_change(change)

    async def look(self) -> KeyChange | None:
        """Take over what has changed in the folder, or with the time."""
        try:
            found = await asyncio.to_thread(self._read)
        except (OSError, ConfigurationError) as error:
            self._report(str(error))
        else:
            if found is not None:
                self._records = self._merged(found)
        before, self.ring = self.ring, ring_at(self._records.values(), now=self._clock())
        return self._compare(before)

    def _read(self) -> dict[str, KeyRecord | ConfigurationError] | None:
        """Runs in a thread. Returns None where nothing has changed since all was well."""
        seen = _fingerprint(self._folder)
        if seen == self._seen and not self._failure:
            return None
        found = dict(each_record(self._folder))
        self._seen = seen  # taken before the files were read: what changes meanwhile is read again
        return found

    def _merged(self, found: Mapping[str, KeyRecord | ConfigurationError]) -> dict[str, KeyRecord]:
        merged = {}
        problems = []
        for kid, record in found.items():
            if isinstance(record, KeyRecord):
                merged[kid] = record
            else:
                problems.append(str(record))
                if kid in self._records:
                    merged[kid] = self._records[kid]
        self._report(" ".join(problems))
        return merged

    def _report(self, failure: str) -> None:
        if failure and failure != self._failure:
            log.error("keys can't be read", reason=failure)
        elif self._failure and not failure:
            log.info("keys can be read again")
        self._failure = failure

    def _compare(self, before: KeyRing) -> KeyChange | None:
        ring = self.ring
        signing = ring.signing.kid if ring.signing else None
        published = tuple(kid for kid in ring.verify if kid not in before.verify)
        dropped = {kid: self._why_gone(kid) for kid in before.verify if kid not in ring.verify}
        if not published and not dropped and signing == (before.signing.kid if before.signing else None):
            return None
        return KeyChange(signing=signing, published=published, dropped=dropped)

    def _why_gone(self, kid: str) -> str:
        record = self._records.get(kid)
        return record.ended.value if record is not None and record.ended is not None else "removed"


def _fingerprint(folder: Path) -> _Seen:
    names = {entry.name for entry in folder.iterdir()}
    files = [folder / name for name in names if not name.startswith(".") and key_names({name})]
    seen = set()
    for file in files:
        status = file.stat()  # through links: a mounted secret is one
        seen.add((file.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return frozenset(seen)
