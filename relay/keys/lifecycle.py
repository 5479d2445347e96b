"""The states of a signing key, and the state of each key at a given time. Pure: no clock and no file here.

    NEXT          published, signs later. A stream listener fetches the issuer's keys only once a minute, and would
                  refuse a token whose key it does not know yet.
    SIGNING       signs new tokens
    OVERLAPPING   replaced, still verifies: its last tokens are still valid
    RETIRED       ended by an operator, its tokens are refused
    REVOKED       ended because somebody else has it, its tokens and connections are ended

The times are in the key's file. So all readers of the folder agree, and copying a file, which changes its
modification time, changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from relay.core.jws import VerifyKey
from relay.core.tokens import LEEWAY_S, MAX_LIFETIME_S, SigningKey

REFRESH_S: Final = 60.0
"""Age in seconds at which published keys are fetched again. Publishers announce a key hours before they use it."""

OVERLAP_S: Final = MAX_LIFETIME_S + LEEWAY_S + REFRESH_S
"""Seconds for which a replaced key must verify: the life of its last token, the leeway of clocks, and the time until a
stream listener refreshes its keys, so that it does not lose the old key before it has the new one."""


class KeyState(StrEnum):
    """The state of a key. The module's docstring explains each."""

    NEXT = "next"
    SIGNING = "signing"
    OVERLAPPING = "overlapping"
    RETIRED = "retired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key of a folder. Times are Unix seconds. `signing` is None without the private file.

    `ended` is RETIRED or REVOKED, and `ended_at` is its time. Both are None for a key that is still valid.
    """

    verify: VerifyKey
    signing: SigningKey | None
    signs_from: float
    ended: KeyState | None = None
    ended_at: float | None = None

    @property
    def kid(self) -> str:
        """The key's id."""
        return self.verify.kid

    def with_private(self, signing: SigningKey) -> "KeyRecord":
        """Return the record with its private half, whose signatures its public half then knows."""
        verify = self.verify
        if verify.key == signing.key.public_key():  # a kid is a part of the key's hash
            verify = replace(verify, signer=signing.signer)
        return replace(self, signing=signing, verify=verify)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """A key and its state. `since` is the time when that state began; for NEXT, the time when the key will sign."""

    key: KeyRecord
    state: KeyState
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """A folder's keys at one time: the signing key (None if all are public), and all keys that verify, by `kid`."""

    signing: SigningKey | None
    verify: Mapping[str, VerifyKey]


def key_statuses(records: Iterable[KeyRecord], *, now: float) -> list[KeyStatus]:
    """Return the state of each key, in the order in which the keys sign.

    The signing key is the one whose `signs_from` passed last. If all of these times are in the future, the first key
    signs: an issuer with a slow clock must not be without a key.
    """
    ordered = sorted(records, key=_order)
    live = [record for record in ordered if record.ended is None]
    able = [
        record for record in live if record.signing is not None
    ] or live  # a stream listener has public keys only
    begun = [record for record in able if record.signs_from <= now]
    signing = begun[-1] if begun else next(iter(able), None)
    found = []
    for record in ordered:
        if record.ended is not None:
            status = KeyStatus(key=record, state=record.ended, since=record.ended_at or 0.0)
        elif record is signing:
            status = KeyStatus(key=record, state=KeyState.SIGNING, since=record.signs_from)
        elif record in able and record.signs_from > now:
            status = KeyStatus(key=record, state=KeyState.NEXT, since=record.signs_from)
        else:
            later = [other.signs_from for other in begun if _order(other) > _order(record)]
            status = KeyStatus(key=record, state=KeyState.OVERLAPPING, since=min(later, default=now))
        found.append(status)
    return found


def ring_at(records: Iterable[KeyRecord], *, now: float) -> KeyRing:
    """Return the key that signs and the keys that verify at `now`. There may be none."""
    found = key_statuses(records, now=now)
    live = [status for status in found if status.key.ended is None]
    return KeyRing(
        signing=next((one.key.signing for one in live if one.state is KeyState.SIGNING), None),
        verify={one.key.kid: one.key.verify for one in live},
    )


def _order(record: KeyRecord) -> tuple[float, str]:
    return record.signs_from, record.kid  # the kid decides a tie, the same way in each process
