"""One key file: read with bounds, and refused in one sentence if it is not exactly what its name says.

A private file that others can read is refused, as ssh does: whoever reads it can mint tokens for any user. A pipe, a
device or a log file of a gigabyte under a key's name must neither hang the start nor fill the memory.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relay.core import strict_json
from relay.core.errors import ConfigurationError, MalformedError
from relay.core.tokens import SigningKey
from relay.keys.jwks import from_jwk, verify_key
from relay.keys.life import KeyRecord, KeyState

PRIVATE_SUFFIX = ".private.pem"
PUBLIC_SUFFIX = ".public.jwk.json"

_ENDS = (KeyState.RETIRED, KeyState.REVOKED)

_MAX_FILE_BYTES = 65_536
"""Most that is read of a key file. Ours have 250 bytes."""


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
        raise ConfigurationError(f"The key file {path} can't be read ({why(error)}).") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is too large for a key file. Move it out of the keys folder.")
    return data


def load_private(path: Path) -> SigningKey:
    """Return the key in a private file.

    Raises:
        ConfigurationError: if it is broken, misnamed, encrypted, of another kind, or readable by others.
    """
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


def load_public(path: Path) -> KeyRecord:
    """Return the key in a public file, with the times that stand there.

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
        raise ConfigurationError(f"{path} is not an Ed25519 signature key, and only those check tokens.")
    if key.kid != verify_key(key.key).kid:
        raise ConfigurationError(f"The kid in {path} is not its key's own. Restore the file, or remove it.")
    _check_name(path, key.kid, PUBLIC_SUFFIX)
    ends = {state: at for state in _ENDS if (at := _time(path, jwk, f"{state}_at")) is not None}
    state = next(reversed(ends), None)  # revoked says more than retired
    begins = _time(path, jwk, "signs_from")
    return KeyRecord(
        verify=key,
        signing=None,
        signs_from=0.0
        if begins is None
        else begins,  # one that does not tell counts as older than all that do
        ended=state,
        ended_at=ends[state] if state else None,
    )


def _time(path: Path, jwk: Mapping[str, Any], name: str) -> float | None:
    value = jwk.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        raise ConfigurationError(f"{name} in {path} must be Unix seconds. Mend it, or remove the file.")
    return float(value)


def _check_name(path: Path, kid: str, suffix: str) -> None:
    if path.name != kid + suffix:
        raise ConfigurationError(
            f"{path} holds the key {kid}, which is not the one of its name. Rename it to {kid}{suffix}."
        )


def why(error: OSError) -> str:
    """Return what the operating system said, for the inside of a sentence."""
    return (error.strerror or str(error)).lower()
