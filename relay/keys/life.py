"""A signing key's life: published, signing, replaced, ended; and which key is where in it at a given time.

A key is published before the first token is signed with it, because a stream on its own reads the issuer's keys
only now and then: a token whose key it does not know yet would be refused. And it goes on verifying when another
signs, because its last tokens live on, and so that nobody has to replace a key and forget it in one instant.

Nothing here reads a clock or a file: when a key begins to sign, and when it was ended, stand in its file, so that
all who read the folder agree, and copying a file (which changes its modification time) changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relay.core.jws import VerifyKey
from relay.core.tokens import LEEWAY_S, MAX_LIFETIME_S, SigningKey
from relay.keys.fetching import REFRESH_S

OVERLAP_S: Final = MAX_LIFETIME_S + LEEWAY_S + REFRESH_S
"""Seconds that a replaced key has to go on verifying: its last token's life, what clocks may differ, and a stream's
refresh, so that no stream on its own loses the old key before it has the new one."""


class KeyState(StrEnum):
    """Where in its life a key is."""

    NEXT = "next"
    SIGNING = "signing"
    OVERLAPPING = "overlapping"
    RETIRED = "retired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key of a folder. Times are Unix seconds. `signing` is None where the private part is not here.

    `ended` is RETIRED or REVOKED, and `ended_at` when; of a key that has not ended both are None.
    """

    verify: VerifyKey
    signing: SigningKey | None
    signs_from: float
    ended: KeyState | None = None
    ended_at: float | None = None

    @property
    def kid(self) -> str:
        """The key's name."""
        return self.verify.kid


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A key and its state. `since` is when that state began; for NEXT it is when the key will sign."""

    key: KeyRecord
    state: KeyState
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """A folder's keys at one time: the one that signs (None where all are public), and all that verify, by `kid`."""

    signing: SigningKey | None
    verify: Mapping[str, VerifyKey]


def standings(records: Iterable[KeyRecord], *, now: float) -> list[Standing]:
    """Return each key's state, in the order in which the keys sign.

    Of those that may, the one signs whose time to sign came last. Where all of them are still to come, the first
    one does: an issuer whose clock is behind must not stand without a key.
    """
    ordered = sorted(records, key=_order)
    live = [record for record in ordered if record.ended is None]
    able = [record for record in live if record.signing is not None] or live  # a stream has public keys only
    begun = [record for record in able if record.signs_from <= now]
    signing = begun[-1] if begun else next(iter(able), None)
    found = []
    for record in ordered:
        if record.ended is not None:
            standing = Standing(key=record, state=record.ended, since=record.ended_at or 0.0)
        elif record is signing:
            standing = Standing(key=record, state=KeyState.SIGNING, since=record.signs_from)
        elif record in able and record.signs_from > now:
            standing = Standing(key=record, state=KeyState.NEXT, since=record.signs_from)
        else:
            later = [other.signs_from for other in begun if _order(other) > _order(record)]
            standing = Standing(key=record, state=KeyState.OVERLAPPING, since=min(later, default=now))
        found.append(standing)
    return found


def ring_at(records: Iterable[KeyRecord], *, now: float) -> KeyRing:
    """Return what signs and what verifies at `now`. Both may be nothing."""
    found = standings(records, now=now)
    live = [standing for standing in found if standing.key.ended is None]
    return KeyRing(
        signing=next((one.key.signing for one in live if one.state is KeyState.SIGNING), None),
        verify={one.key.kid: one.key.verify for one in live},
    )


def _order(record: KeyRecord) -> tuple[float, str]:
    return record.signs_from, record.kid  # the kid settles a tie the same way everywhere
