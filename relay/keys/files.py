"""The issuer's signing keys as files in one folder.

A key is two files: `<kid>.private.pem` (PKCS #8, mode 0600) and `<kid>.public.jwk.json` (RFC 7517, with
`signs_from`, the time from which it may sign). What a key is for follows from the files that are there and the
times in them, and copying files is all that an operator needs to know:

- both files: the key may sign. Of several, the one signs whose `signs_from` came last; `relay.keys.life` says more.
- only the public file: tokens signed with it are accepted. That is all that a stream on its own gets.
- a public file with `retired_at` or `revoked_at`: its tokens are refused. The file stays, so that a `kid` in the
  audit log can still be looked up; the private one is gone.
- neither: its tokens are refused.

Files appear and change in one step (written beside, then linked or renamed), because a running relay reads the
folder at any moment and must not meet half a key.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.core.errors import ConfigurationError
from relay.core.jws import VerifyKey
from relay.core.tokens import SigningKey
from relay.keys.jwks import to_jwk, verify_key
from relay.keys.life import KeyRecord, KeyRing, KeyState, ring_at
from relay.keys.reading import PRIVATE_SUFFIX, PUBLIC_SUFFIX, load_private, load_public, why


def private_path(folder: Path, kid: str) -> Path:
    """Return where the private part of the key `kid` is kept in `folder`."""
    return folder / f"{kid}{PRIVATE_SUFFIX}"


def public_path(folder: Path, kid: str) -> Path:
    """Return where the public part of the key `kid` is kept in `folder`."""
    return folder / f"{kid}{PUBLIC_SUFFIX}"


def create_signing_key(folder: Path, *, signs_from: float | None = None) -> SigningKey:
    """Make a new Ed25519 key and write its two files into `folder`, made with mode 0700 if it is missing.

    `signs_from` (Unix seconds) is when it may begin to sign; None: at once.

    Raises:
        ConfigurationError: if the files can't be written. None of them is then left half-written.
    """
    key = Ed25519PrivateKey.generate()
    public = verify_key(key.public_key())
    times = {"signs_from": time.time() if signs_from is None else signs_from}
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # the public file first: after a crash in between, there is at most a public key that nobody can use
        _write_new(public_path(folder, public.kid), _jwk_text(public, times), mode=0o644)
        _write_new(private_path(folder, public.kid), pem, mode=0o600)
    except OSError as error:
        raise ConfigurationError(
            f"No key can be written to {folder} ({why(error)}). Name a folder that you may write to."
        ) from None
    return SigningKey(kid=public.kid, key=key)


def end_key(folder: Path, record: KeyRecord, *, state: KeyState, at: float) -> None:
    """Write into the key's public file that it was retired or revoked, then remove its private file.

    Raises:
        ConfigurationError: if that can't be written or removed.
    """
    times = {"signs_from": record.signs_from, f"{state}_at": at}
    try:
        # in this order: after a crash in between, the private file is there and nobody uses it
        _replace(public_path(folder, record.kid), _jwk_text(record.verify, times), mode=0o644)
        private_path(folder, record.kid).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The key {record.kid} can't be ended in {folder} ({why(error)}). Run this as the folder's owner."
        ) from None


def begin_signing(folder: Path, record: KeyRecord, *, at: float) -> None:
    """Let a key that waits sign from `at` on.

    Raises:
        ConfigurationError: if its file can't be written.
    """
    try:
        _replace(public_path(folder, record.kid), _jwk_text(record.verify, {"signs_from": at}), mode=0o644)
    except OSError as error:
        raise ConfigurationError(
            f"The key {record.kid} can't be changed in {folder} ({why(error)}). Run this as the folder's owner."
        ) from None


def load_keys(folder: Path, *, now: float | None = None) -> KeyRing:
    """Read all keys in `folder`, as they stand at `now` (Unix seconds; None: by this machine's clock).

    Raises:
        ConfigurationError: as `load_records` does, and where every key in the folder has ended.
    """
    ring = ring_at(load_records(folder), now=time.time() if now is None else now)
    if not ring.verify:
        raise ConfigurationError(
            f"All keys in {folder} are retired or revoked. Run `relay keys new --dir {folder}`."
        )
    return ring


def load_records(folder: Path) -> list[KeyRecord]:
    """Read all keys in `folder`, those that have ended too. Files with other names are left alone.

    Raises:
        ConfigurationError: with one sentence that says what to mend, if the folder is missing or has no key,
            or if any key file in it is broken, misnamed, of another kind, encrypted, or readable by others.
    """
    found = [record for _, record in each_record(folder)]
    for record in found:
        if isinstance(record, ConfigurationError):
            raise record
    if not found:
        raise ConfigurationError(f"There is no key in {folder}. Run `relay keys new --dir {folder}`.")
    return [record for record in found if isinstance(record, KeyRecord)]


def each_record(folder: Path) -> Iterator[tuple[str, KeyRecord | ConfigurationError]]:
    """Yield each key of the folder by the name of its files, or what is wrong with them.

    Raises:
        ConfigurationError: if the folder itself can't be read.
    """
    try:
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    except OSError as error:
        raise ConfigurationError(
            f"The keys folder {folder} can't be read ({why(error)}). Run `relay keys new --dir {folder}`, "
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
    """Return the part before the suffix of those file names that are a key's."""
    suffixes = (PUBLIC_SUFFIX, PRIVATE_SUFFIX)
    return {name.removesuffix(suffix) for name in names for suffix in suffixes if name.endswith(suffix)}


def _load(folder: Path, kid: str, *, public: bool, private: bool) -> KeyRecord:
    record = load_public(public_path(folder, kid)) if public else None
    if private and (record is None or record.ended is None):
        signing = load_private(private_path(folder, kid))
        if record is None:
            # a private file alone will do: it may come from a secret store that holds one value a key
            return KeyRecord(verify=verify_key(signing.key.public_key()), signing=signing, signs_from=0.0)
        return replace(record, signing=signing)
    assert record is not None  # one of the two files gave the name
    return record


def _jwk_text(key: VerifyKey, times: Mapping[str, float]) -> bytes:
    whole = {
        name: round(value, 3) for name, value in times.items()
    }  # milliseconds: two keys of one second differ
    return json.dumps(to_jwk(key) | whole, indent=2).encode() + b"\n"


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet, in one step. A link that somebody planted there is not followed."""
    beside = _write_beside(path, data, mode=mode)
    try:
        os.link(beside, path)
    finally:
        beside.unlink()


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that may exist, in one step."""
    beside = _write_beside(path, data, mode=mode)
    try:
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _write_beside(path: Path, data: bytes, *, mode: int) -> Path:
    beside = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside
