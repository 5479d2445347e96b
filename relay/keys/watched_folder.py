"""The keys of a running relay: a folder of key files that is checked for changes twice a second.

A signal to the process would be faster, but it needs the process id, which a tool that mounts secrets into a container
does not have. And a lost signal would leave a stolen key in use.
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
from relay.keys.lifecycle import KeyRecord, KeyRing, KeyState, ring_at

CHECK_EVERY_S: Final = 0.5
"""Seconds between two checks of the folder: a revoked key must be refused within a second."""

_Fingerprint = frozenset[tuple[str, int, int, int]]

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A change of the folder: the key that signs now (None: no key), the new keys, and the dropped keys.

    `dropped` has a word for each dropped kid: "retired", "revoked", or "removed" if its files are gone.
    """

    signing: str | None
    published: tuple[str, ...]
    dropped: Mapping[str, str]


class WatchedKeys:
    """The current keys of a folder. Without a running `watch` they are the keys at the start."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the folder. `clock` returns Unix seconds and decides when the next key signs.

        Raises:
            ConfigurationError: as `load_keys` does.
        """
        self._folder = folder
        self._clock = clock
        # None until the first check, so that a change during the start is found
        self._fingerprint: _Fingerprint | None = None
        self._failure = ""
        self.ring: KeyRing = load_keys(folder, now=clock())
        self._records = {record.kid: record for record in load_records(folder)}

    async def keys_for(
        self,
        _token: str,
        *,
        caller: str = "",  # noqa: ARG002  # the port has it
    ) -> Mapping[str, VerifyKey]:
        """See `KeySource.keys_for`."""
        return self.ring.verify

    def is_revoked(self, kid: str) -> bool:
        """See `KeySource.is_revoked`."""
        record = self._records.get(kid)
        return record is not None and record.ended is KeyState.REVOKED

    def signing_key(self) -> SigningKey:
        """Return the key to sign with now.

        Raises:
            UnavailableError: if no key may sign any more.
        """
        if self.ring.signing is None:
            raise UnavailableError(Reason.KEYS_UNAVAILABLE, f"No key in {self._folder} may sign.")
        return self.ring.signing

    async def watch(self, on_change: Callable[[KeyChange], None]) -> None:
        """Check the folder until cancelled, and call `on_change` for each change."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            change = await self.refresh()
            if change is not None:
                on_change(change)

    async def refresh(self) -> KeyChange | None:
        """Check the folder once. Returns what has changed in it, or with the time.

        A folder that can't be read changes nothing. A broken file leaves its own key as it was and no other: a mistake
        in one file must not keep a revoked key in use.
        """
        try:
            found = await asyncio.to_thread(self._read)
        except (OSError, ConfigurationError) as error:
            self._log_failure(str(error))
        else:
            if found is not None:
                self._records = self._merged(found)
        # one assignment on the event loop: each token is signed and checked with a whole ring
        before, self.ring = self.ring, ring_at(self._records.values(), now=self._clock())
        return self._change_since(before)

    def _read(self) -> dict[str, KeyRecord | ConfigurationError] | None:
        """Runs in a thread, because a network folder may be slow. Returns None if nothing has changed."""
        fingerprint = _fingerprint(self._folder)
        if fingerprint == self._fingerprint and not self._failure:
            return None
        found = dict(each_record(self._folder))
        # this one was taken before the files were read, so a change in between is found next time
        self._fingerprint = fingerprint
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
        self._log_failure(" ".join(problems))
        return merged

    def _log_failure(self, failure: str) -> None:
        """Log a failure once, though the folder is read again each time."""
        if failure and failure != self._failure:
            log.error("keys can't be read", reason=failure)
        elif self._failure and not failure:
            log.info("keys can be read again")
        self._failure = failure

    def _change_since(self, before: KeyRing) -> KeyChange | None:
        ring = self.ring
        signing = ring.signing.kid if ring.signing else None
        published = tuple(kid for kid in ring.verify if kid not in before.verify)
        dropped = {kid: self._reason_dropped(kid) for kid in before.verify if kid not in ring.verify}
        if not published and not dropped and signing == (before.signing.kid if before.signing else None):
            return None
        return KeyChange(signing=signing, published=published, dropped=dropped)

    def _reason_dropped(self, kid: str) -> str:
        record = self._records.get(kid)
        return record.ended.value if record is not None and record.ended is not None else "removed"


def _fingerprint(folder: Path) -> _Fingerprint:
    names = {entry.name for entry in folder.iterdir()}
    files = [folder / name for name in names if not name.startswith(".") and key_names({name})]
    seen = set()
    for file in files:
        status = file.stat()  # follows links: a mounted secret is a link
        seen.add((file.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return frozenset(seen)
