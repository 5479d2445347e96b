"""The issuer's signing keys as files in one folder.

A key has two files: `<kid>.private.pem` (PKCS #8, mode 0600) and `<kid>.public.jwk.json` (RFC 7517, with
`signs_from`, the time from which it may sign). The files and the times in them say what a key is for:

- Both files: the key may sign. `relay.keys.lifecycle` says which of several keys signs.
- Only the public file: tokens of this key are accepted. A stream listener in a process of its own has only these.
- A public file with `retired_at` or `revoked_at`: tokens of this key are refused. The private file is removed. The
  public file stays, so that a `kid` in the audit log can be looked up.
- No file: tokens of this key are refused.

A running relay reads the folder at any moment and must not find half a key. So each file is written under another name
and then linked or renamed.

A key file may come from a mounted folder, so it is read with bounds. A pipe, a device or a large file under a key's
name must not block the start or fill the memory. A private file that other users can read is refused, as ssh does.
"""

import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from relay.core import strict_json
from relay.core.errors import ConfigurationError, MalformedError
from relay.core.jws import VerifyKey
from relay.core.tokens import SigningKey
from relay.keys.jwks import from_jwk, to_jwk, verify_key
from relay.keys.lifecycle import KeyRecord, KeyRing, KeyState, ring_at

PRIVATE_SUFFIX = ".private.pem"
PUBLIC_SUFFIX = ".public.jwk.json"

_ENDS = (KeyState.RETIRED, KeyState.REVOKED)

_MAX_FILE_BYTES = 65_536
"""Most bytes that are read of a key file. A key file has 250 bytes."""


def private_path(folder: Path, kid: str) -> Path:
    """Return the path of the private file of the key `kid` in `folder`."""
    return folder / f"{kid}{PRIVATE_SUFFIX}"


def public_path(folder: Path, kid: str) -> Path:
    """Return the path of the public file of the key `kid` in `folder`."""
    return folder / f"{kid}{PUBLIC_SUFFIX}"


def create_signing_key(folder: Path, *, signs_from: float | None = None) -> SigningKey:
    """Make a new Ed25519 key and write its two files. A missing `folder` is created with mode 0700.

    `signs_from` (Unix seconds) is the time from which it may sign; None means now.

    Raises:
        ConfigurationError: if a file can't be written. No file is then left half-written.
    """
    key = Ed25519PrivateKey.generate()
    public = verify_key(key.public_key())
    times = {"signs_from": time.time() if signs_from is None else signs_from}
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # the public file first: after a crash in between, there is only a public key without a use
        _write_new(public_path(folder, public.kid), _jwk_text(public, times), mode=0o644)
        _write_new(private_path(folder, public.kid), pem, mode=0o600)
    except OSError as error:
        raise ConfigurationError(
            f"No key can be written to {folder} ({_reason(error)}). Name a folder that you may write to."
        ) from None
    return SigningKey(kid=public.kid, key=key)


def end_key(folder: Path, record: KeyRecord, *, state: KeyState, at: float) -> None:
    """Record in the key's public file that it is retired or revoked, then remove its private file.

    Raises:
        ConfigurationError: if the files can't be written or removed.
    """
    times = {"signs_from": record.signs_from, f"{state}_at": at}
    try:
        # in this order: after a crash in between, the private file is there but unused
        _replace(public_path(folder, record.kid), _jwk_text(record.verify, times), mode=0o644)
        private_path(folder, record.kid).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The key {record.kid} can't be ended in {folder} ({_reason(error)}). Run this as the folder's owner."
        ) from None


def begin_signing(folder: Path, record: KeyRecord, *, at: float) -> None:
    """Let a key that does not sign yet sign from `at` on.

    Raises:
        ConfigurationError: if its file can't be written.
    """
    try:
        _replace(public_path(folder, record.kid), _jwk_text(record.verify, {"signs_from": at}), mode=0o644)
    except OSError as error:
        raise ConfigurationError(
            f"The key {record.kid} can't be changed in {folder} ({_reason(error)}). Run this as the folder's owner."
        ) from None


def load_keys(folder: Path, *, now: float | None = None) -> KeyRing:
    """Read all keys in `folder`, with their states at `now` (Unix seconds; None: this machine's clock).

    Raises:
        ConfigurationError: as `load_records` does, and if every key in the folder is retired or revoked.
    """
    ring = ring_at(load_records(folder), now=time.time() if now is None else now)
    if not ring.verify:
        raise ConfigurationError(
            f"All keys in {folder} are retired or revoked. Run `relay keys new --dir {folder}`."
        )
    return ring


def load_records(folder: Path) -> list[KeyRecord]:
    """Read all keys in `folder`, with retired and revoked keys. Files with other names are ignored.

    Raises:
        ConfigurationError: if the folder is missing or has no key, or if a key file is broken, misnamed, of another
            kind, encrypted, or readable by other users. The sentence says what to do.
    """
    found = [record for _, record in each_record(folder)]
    for record in found:
        if isinstance(record, ConfigurationError):
            raise record
    if not found:
        raise ConfigurationError(f"There is no key in {folder}. Run `relay keys new --dir {folder}`.")
    return [record for record in found if isinstance(record, KeyRecord)]


def each_record(folder: Path) -> Iterator[tuple[str, KeyRecord | ConfigurationError]]:
    """Yield the kid and the record of each key in the folder, or the error of its files.

    Raises:
        ConfigurationError: if the folder itself can't be read.
    """
    try:
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    except OSError as error:
        raise ConfigurationError(
            f"The keys folder {folder} can't be read ({_reason(error)}). Run `relay keys new --dir {folder}`, "
            "or set tokens.keys_dir to the right folder."
        ) from None
    for kid in sorted(key_names(names)):
        try:
            yield (
                kid,
                _load(
                    folder,
                    kid,
                    public=f"{kid}{PUBLIC_SUFFIX}" in names,
                    private=f"{kid}{PRIVATE_SUFFIX}" in names,
                ),
            )
        except ConfigurationError as error:
            yield kid, error


def key_names(names: set[str]) -> set[str]:
    """Return the kids in the file names of keys; other names are ignored."""
    suffixes = (PUBLIC_SUFFIX, PRIVATE_SUFFIX)
    return {name.removesuffix(suffix) for name in names for suffix in suffixes if name.endswith(suffix)}


def _load(folder: Path, kid: str, *, public: bool, private: bool) -> KeyRecord:
    record = load_public(public_path(folder, kid)) if public else None
    if private and (record is None or record.ended is None):
        signing = load_private(private_path(folder, kid))
        if record is None:
            # a private file alone is enough: it may come from a secret store with one value for each key
            record = KeyRecord(verify=verify_key(signing.key.public_key()), signing=None, signs_from=0.0)
        return record.with_private(signing)
    assert record is not None  # one of the two files gave the name
    return record


def _jwk_text(key: VerifyKey, times: Mapping[str, float]) -> bytes:
    # milliseconds, so that two keys of the same second have an order
    rounded = {name: round(value, 3) for name, value in times.items()}
    return json.dumps(to_jwk(key) | rounded, indent=2).encode() + b"\n"


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet, in one step. A link at its place is not followed."""
    temporary = _write_temporary(path, data, mode=mode)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that may exist, in one step."""
    temporary = _write_temporary(path, data, mode=mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_temporary(path: Path, data: bytes, *, mode: int) -> Path:
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _read(path: Path, *, private: bool) -> bytes:
    try:
        # O_NONBLOCK: a pipe under this name must not block the start
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())  # of the open file: the name may lead to another file by now
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{path} is not a file. Move it out of the keys folder.")
            if private and status.st_mode & 0o077:
                raise ConfigurationError(
                    f"{path} can be read or written by other users (mode {stat.S_IMODE(status.st_mode):04o}), who "
                    f"could make tokens with it. Run `chmod 600 {path}`, or better, make a new key."
                )
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"The key file {path} can't be read ({_reason(error)}).") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is too large for a key file. Move it out of the keys folder.")
    return data


def load_private(path: Path) -> SigningKey:
    """Return the key in a private file.

    Raises:
        ConfigurationError: if it is broken, misnamed, encrypted, of another kind, or readable by other users.
    """
    pem = _read(path, private=True)
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:  # cryptography raises it for a missing password
        raise ConfigurationError(
            f"{path} is encrypted. Decrypt it with `openssl pkey`, or make a new key with `relay keys new`."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{path} holds no private key in PEM form. Restore it, or make a new key with `relay keys new`."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{path} is not an Ed25519 key, and only Ed25519 keys sign tokens. Make one with `relay keys new`."
        )
    kid = verify_key(key.public_key()).kid
    _check_name(path, kid, PRIVATE_SUFFIX)
    return SigningKey(kid=kid, key=key)


def load_public(path: Path) -> KeyRecord:
    """Return the key in a public file, with its times.

    Raises:
        ConfigurationError: if it is broken, misnamed or of another kind.
    """
    try:
        jwk = strict_json.parse_object(_read(path, private=False))
        key = from_jwk(jwk)
    except ValueError as error:
        raise ConfigurationError(f"{path} holds no public key: {error}.") from None
    except MalformedError as error:
        raise ConfigurationError(f"{path} holds no public key: {error.detail}") from None
    if key is None:
        raise ConfigurationError(f"{path} is not an Ed25519 signature key, and only those keys check tokens.")
    if key.kid != verify_key(key.key).kid:
        raise ConfigurationError(
            f"The kid in {path} does not belong to its key. Restore the file, or remove it."
        )
    _check_name(path, key.kid, PUBLIC_SUFFIX)
    ends = {state: at for state in _ENDS if (at := _time(path, jwk, f"{state}_at")) is not None}
    state = next(reversed(ends), None)  # if both are there, revoked wins
    return KeyRecord(
        verify=key,
        signing=None,
        signs_from=_time(path, jwk, "signs_from") or 0.0,  # without the time, it counts as the oldest key
        ended=state,
        ended_at=ends[state] if state else None,
    )


def _time(path: Path, jwk: Mapping[str, Any], name: str) -> float | None:
    value = jwk.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        raise ConfigurationError(f"{name} in {path} must be Unix seconds. Correct it, or remove the file.")
    return float(value)


def _check_name(path: Path, kid: str, suffix: str) -> None:
    if path.name != kid + suffix:
        raise ConfigurationError(
            f"{path} holds the key {kid}, but its name says another key. Rename it to {kid}{suffix}."
        )


def _reason(error: OSError) -> str:
    """Return the operating system's text, for the inside of a sentence."""
    return (error.strerror or str(error)).lower()
