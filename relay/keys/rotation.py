"""The operator's changes to a folder of keys: rotate, retire, revoke.

They change only files. Running relays watch their folder (`relay.keys.watched_folder`), so the commands need no
connection to a relay, and they also work on a folder that is copied to another machine later.

No key is removed while its last tokens are valid, except by `revoke`, which is for a stolen key.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.core.errors import ConfigurationError
from relay.core.tokens import SigningKey
from relay.keys.files import (
    PRIVATE_SUFFIX,
    PUBLIC_SUFFIX,
    begin_signing,
    create_signing_key,
    each_record,
    end_key,
    load_records,
)
from relay.keys.lifecycle import OVERLAP_S, KeyRecord, KeyState, KeyStatus, key_statuses

PUBLISH_BEFORE_SIGN_S: Final = 180
"""Seconds between publishing a key and signing with it: a minute in an HTTP cache, a minute until a stream listener
refreshes its keys, and a minute more in case one refresh fails."""

KEEP_S: Final = 86_400
"""Seconds for which a rotation keeps a replaced key: a day, in which the log can show that it is not needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """The new key, the time from which it signs (Unix seconds), and the kids of the keys that were retired."""

    key: SigningKey
    signs_from: float
    retired: tuple[str, ...]


def rotate(folder: Path, *, now: float, publish_before_sign_s: float, keep_s: float = KEEP_S) -> Rotated:
    """Make a new key that is published now and signs later. Retire the keys that were replaced `keep_s` seconds ago.

    Raises:
        ConfigurationError: if the folder has no key, or already a next key, or is broken, or can't be written.
    """
    found = key_statuses(load_records(folder), now=now)
    if all(one.key.ended for one in found):
        raise ConfigurationError(
            f"There is no key to replace in {folder}. Run `relay keys new --dir {folder}`."
        )
    for one in found:
        if one.state is KeyState.NEXT:
            raise ConfigurationError(
                f"The key {one.key.kid} is already published and signs in {one.since - now:.0f} s. "
                "Wait until then, or remove it with `relay keys retire`."
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
    """Refuse a replaced key's tokens from now on, or remove a key that has not signed yet.

    Raises:
        ConfigurationError: if the key signs, if its last tokens may still be valid, or if it has already ended.
    """
    one = _find(key_statuses(load_records(folder), now=now), kid, folder)
    match one.state:
        case KeyState.SIGNING:
            raise ConfigurationError(
                f"The key {kid} signs. Run `relay keys rotate` first, or `relay keys revoke` if somebody else has it."
            )
        case KeyState.OVERLAPPING if now < one.since + OVERLAP_S:
            raise ConfigurationError(
                f"The key {kid} was replaced {now - one.since:.0f} s ago, and its tokens may still be valid. "
                f"Wait {one.since + OVERLAP_S - now:.0f} s, or run `relay keys revoke` if somebody else has it."
            )
        case KeyState.RETIRED | KeyState.REVOKED:
            raise ConfigurationError(f"The key {kid} is already {one.state}.")
    end_key(folder, one.key, state=KeyState.RETIRED, at=now)


def revoke(folder: Path, kid: str, *, now: float) -> str | None:
    """Refuse a key's tokens from now on, whatever its state. Returns the kid of the key that signs instead, if any.

    If it was the signing key, the next key signs at once. Without a next key a new one is made. Stream listeners do not
    know it yet and refuse some tokens, but a stolen key must not sign any longer.

    Raises:
        ConfigurationError: if there is no such key, or if its files are broken or can't be written. Broken files of
            other keys do not stop it.
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
        raise ConfigurationError(f"The key {kid} is already revoked.")
    before = key_statuses([one for one in records.values() if isinstance(one, KeyRecord)], now=now)
    signed = _find(before, kid, folder).state is KeyState.SIGNING and record.signing is not None
    end_key(folder, record, state=KeyState.REVOKED, at=now)
    if not signed:
        return None
    waiting = next((one.key for one in before if one.state is KeyState.NEXT), None)
    if waiting is None:
        return create_signing_key(folder, signs_from=now).kid
    begin_signing(folder, waiting, at=now)
    return waiting.kid


def _find(found: list[KeyStatus], kid: str, folder: Path) -> KeyStatus:
    for one in found:
        if one.key.kid == kid:
            return one
    raise _unknown(kid, folder, [one.key.kid for one in found])


def _unknown(kid: str, folder: Path, known: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f"There is no key {kid[:80]!r} in {folder}; there is {', '.join(known) or 'none'}."
    )
