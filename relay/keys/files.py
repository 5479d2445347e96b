"""The issuer's signing keys as files in one folder.

A key is two files: `<kid>.private.pem` (PKCS #8, mode 0600) and `<kid>.public.jwk.json` (RFC 7517, with
`iat`, the time it was made). What a key is for follows from the files that are there, so that no third file
can say otherwise, and copying files is all that an operator needs to know:

- both files: the key may sign. Of several, the oldest signs and the others are only published: a new key is
  known to every stream before the first token is signed with it.
- only the public file: tokens signed with it are still accepted. That is a retired key, and it is all that a
  stream on its own gets.
- neither: its tokens are refused.

A private file that others can read is refused, as ssh does: whoever reads it can mint tokens for any user.
"""

import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from relay.core.errors import ConfigurationError, MalformedError
from relay.core.jws import VerifyKey, parse_json_object
from relay.core.tokens import SigningKey
from relay.keys.jwks import from_jwk, to_jwk, verify_key

PRIVATE_SUFFIX = ".private.pem"
PUBLIC_SUFFIX = ".public.jwk.json"

_MAX_FILE_BYTES = 65_536
"""Most that is read of a key file. Ours have 200 bytes; a device or a log file must not fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """A folder's keys: the one that signs (None where all are public), and all that verify, by `kid`."""

    signing: SigningKey | None
    verify: Mapping[str, VerifyKey]


def private_path(folder: Path, kid: str) -> Path:
    """Return where the private part of the key `kid` is kept in `folder`."""
    return folder / f"{kid}{PRIVATE_SUFFIX}"


def public_path(folder: Path, kid: str) -> Path:
    """Return where the public part of the key `kid` is kept in `folder`."""
    return folder / f"{kid}{PUBLIC_SUFFIX}"


def create_signing_key(folder: Path) -> SigningKey:
    """Make a new Ed25519 key and write its two files into `folder`, made with mode 0700 if it is missing.

    Raises:
        ConfigurationError: if the files can't be written. None of them is then left half-written.
    """
    key = Ed25519PrivateKey.generate()
    public = verify_key(key.public_key())
    jwk = json.dumps(to_jwk(public) | {"iat": int(time.time())}, indent=2).encode() + b"\n"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # the public file first: after a crash in between, there is at most a public key that nobody can use
        _write_new(public_path(folder, public.kid), jwk, mode=0o644)
        _write_new(private_path(folder, public.kid), pem, mode=0o600)
    except OSError as error:
        raise ConfigurationError(
            f"No key can be written to {folder} ({_why(error)}). Name a folder that you may write to."
        ) from None
    return SigningKey(kid=public.kid, key=key)


def load_keys(folder: Path) -> KeyRing:
    """Read all keys in `folder`. Files with other names are left alone.

    Raises:
        ConfigurationError: with one sentence that says what to mend, if the folder is missing or has no key,
            or if any key file in it is broken, misnamed, of another kind, encrypted, or readable by others.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise ConfigurationError(
            f"The keys folder {folder} can't be read ({_why(error)}). Run `relay keys new --dir {folder}`, "
            "or set tokens.keys_dir to the right folder."
        ) from None
    verify: dict[str, VerifyKey] = {}
    made_at: dict[str, float] = {}
    for name in names:
        if name.endswith(PUBLIC_SUFFIX):
            key, made = _load_public(folder / name)
            verify[key.kid] = key
            made_at[key.kid] = made
    signing: list[SigningKey] = []
    for name in names:
        if name.endswith(PRIVATE_SUFFIX):
            private = _load_private(folder / name)
            signing.append(private)
            # a private file alone will do: it may come from a secret store that holds one value a key
            verify.setdefault(private.kid, verify_key(private.key.public_key()))
    if not verify:
        raise ConfigurationError(f"There is no key in {folder}. Run `relay keys new --dir {folder}`.")
    # one without a known age counts as the oldest; the kid settles a tie the same way on every start
    signing.sort(key=lambda key: (made_at.get(key.kid, 0.0), key.kid))
    return KeyRing(signing=signing[0] if signing else None, verify=verify)


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet. O_EXCL also follows no link that somebody planted there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _read(path: Path, *, private: bool) -> bytes:
    try:
        # O_NONBLOCK: a pipe under this name must not hang the start
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())  # of the file that is open, not of what the name means by now
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{path} is not a file. Move it out of the keys folder.")
            if private and status.st_mode & 0o077:
                raise ConfigurationError(
                    f"{path} can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}), who "
                    f"could make tokens with it. Run `chmod 600 {path}`, or better, make a new key."
                )
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"The key file {path} can't be read ({_why(error)}).") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is too large for a key file. Move it out of the keys folder.")
    return data


def _load_private(path: Path) -> SigningKey:
    pem = _read(path, private=True)
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:  # cryptography's way to say that a password is needed
        raise ConfigurationError(
            f"{path} is encrypted. Decrypt it with `openssl pkey`, or make a new key with `relay keys new`."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{path} holds no private key in PEM form. Restore it, or make a new key with `relay keys new`."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{path} is not an Ed25519 key, and only those sign tokens. Make one with `relay keys new`."
        )
    kid = verify_key(key.public_key()).kid
    _check_name(path, kid, PRIVATE_SUFFIX)
    return SigningKey(kid=kid, key=key)


def _load_public(path: Path) -> tuple[VerifyKey, float]:
    """Return the key, and when it was made (Unix seconds, 0 if the file doesn't tell)."""
    try:
        jwk = parse_json_object(_read(path, private=False))
        key = from_jwk(jwk)
    except ValueError as error:
        raise ConfigurationError(f"{path} holds no public key: {error}.") from None
    except MalformedError as error:
        raise ConfigurationError(f"{path} holds no public key: {error.detail}") from None
    if key is None:
        raise ConfigurationError(f"{path} is not an Ed25519 signature key, and only those check tokens.")
    if key.kid != verify_key(key.key).kid:
        raise ConfigurationError(f"The kid in {path} is not its key's own. Restore the file, or remove it.")
    _check_name(path, key.kid, PUBLIC_SUFFIX)
    made = jwk.get("iat")
    return key, made if isinstance(made, int | float) else 0.0


def _check_name(path: Path, kid: str, suffix: str) -> None:
    if path.name != kid + suffix:
        raise ConfigurationError(
            f"{path} holds the key {kid}, which is not the one of its name. Rename it to {kid}{suffix}."
        )


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
