"""What an operator does to a folder of keys: rotate, retire, revoke.

Each acts on the files alone. Running relays watch their folder (`relay.keys.live`), so there is no process to
find, no port to reach and no answer to wait for, and the same commands serve a folder that is copied elsewhere.

A key is never taken away while its last tokens live, except by `revoke`, which is for a key that somebody else has.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.core.errors import ConfigurationError
from relay.core.tokens import SigningKey
from relay.keys.files import begin_signing, create_signing_key, each_record, end_key, load_records
from relay.keys.life import OVERLAP_S, KeyRecord, KeyState, Standing, standings
from relay.keys.reading import PRIVATE_SUFFIX, PUBLIC_SUFFIX

PUBLISH_BEFORE_SIGN_S: Final = 180
"""Seconds between publishing a key and signing with it: a minute in a cache before the JWKS, a minute until a stream's
refresh, and as much again for a stream whose refresh fails once."""

KEEP_S: Final = 86_400
"""Seconds for which a rotation leaves a replaced key: a day, in which one can see in the log that nobody needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """A new key, when it will sign (Unix seconds), and the old ones that were retired with it."""

    key: SigningKey
    signs_from: float
    retired: tuple[str, ...]


def rotate(folder: Path, *, now: float, publish_before_sign_s: float, keep_s: float = KEEP_S) -> Rotated:
    """Make a new key that is published now and signs later; retire what has been replaced for `keep_s`.

    Raises:
        ConfigurationError: if the folder has no key yet or one that waits already, is broken, or can't be written.
    """
    found = standings(load_records(folder), now=now)
    if all(one.key.ended for one in found):
        raise ConfigurationError(
            f"There is no key to replace in {folder}. Run `relay keys new --dir {folder}`."
        )
    for one in found:
        if one.state is KeyState.NEXT:
            raise ConfigurationError(
                f"The key {one.key.kid} is published already and signs in {one.since - now:.0f} s. "
                "Wait for that, or take it back with `relay keys retire`."
            )
    retired = [
        one.key
        for one in found
        if one.state is KeyState.OVERLAPPING and one.since + max(keep_s, OVERLAP_S) <= now
    ]
    signs_from = now + publish_before_sign_s
    key = create_signing_key(folder, signs_from=signs_from)
    for old in retired:
        end_key(folder, old, state=KeyState.RETIRED, at=now)
    return Rotated(key=key, signs_from=signs_from, retired=tuple(old.kid for old in retired))


def retire(folder: Path, kid: str, *, now: float) -> None:
    """Refuse a replaced key's tokens from now on, or take back a key that has not signed yet.

    Raises:
        ConfigurationError: if the key signs, was replaced so lately that its tokens may be alive, or has ended.
    """
    one = _find(standings(load_records(folder), now=now), kid, folder)
    match one.state:
        case KeyState.SIGNING:
            raise ConfigurationError(
                f"The key {kid} signs. Run `relay keys rotate` first, or `relay keys revoke` if somebody else has it."
            )
        case KeyState.OVERLAPPING if now < one.since + OVERLAP_S:
            raise ConfigurationError(
                f"The key {kid} was replaced {now - one.since:.0f} s ago, and its tokens may be alive. "
                f"Wait {one.since + OVERLAP_S - now:.0f} s, or run `relay keys revoke` if somebody else has it."
            )
        case KeyState.RETIRED | KeyState.REVOKED:
            raise ConfigurationError(f"The key {kid} is {one.state} already.")
    end_key(folder, one.key, state=KeyState.RETIRED, at=now)


def revoke(folder: Path, kid: str, *, now: float) -> str | None:
    """Refuse a key's tokens from now on, whatever its state; returns which key signs from now on in its place, if any.

    If it was the one that signs, the next one begins at once, or else a new one that streams on their own have to
    look up: better some refusals than tokens of somebody who should not be able to make any.

    Raises:
        ConfigurationError: if there is no such key, or it can't be written. Another key's broken file is no reason
            to leave this one as it is; it is named after this one is revoked.
    """
    records = dict(each_record(folder))
    if not kid or kid not in records:
        raise _unknown(kid, folder, sorted(records))
    record = records[kid]
    if isinstance(record, ConfigurationError):
        raise ConfigurationError(
            f"{record} To refuse this key at once, remove {kid}{PRIVATE_SUFFIX} and {kid}{PUBLIC_SUFFIX}."
        )
    if record.ended is KeyState.REVOKED:
        raise ConfigurationError(f"The key {kid} is revoked already.")
    before = standings([one for one in records.values() if isinstance(one, KeyRecord)], now=now)
    signed = _find(before, kid, folder).state is KeyState.SIGNING and record.signing is not None
    end_key(folder, record, state=KeyState.REVOKED, at=now)
    if not signed:
        return None
    waiting = next((one.key for one in before if one.state is KeyState.NEXT), None)
    if waiting is None:
        return create_signing_key(folder, signs_from=now).kid
    begin_signing(folder, waiting, at=now)
    return waiting.kid


def _find(found: list[Standing], kid: str, folder: Path) -> Standing:
    for one in found:
        if one.key.kid == kid:
            return one
    raise _unknown(kid, folder, [one.key.kid for one in found])


def _unknown(kid: str, folder: Path, known: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f"There is no key {kid[:80]!r} in {folder}; there is {', '.join(known) or 'none'}."
    )
