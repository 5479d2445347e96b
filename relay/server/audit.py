"""How the settings keep the audit log: with which key it is signed, when it changes files, how long it is kept."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.audit.copying import Copy
from relay.audit.writing import Keeping, Sync
from relay.core.errors import ConfigurationError
from relay.keys.files import create_signing_key, load_keys
from relay.settings.load import Settings


@dataclass(frozen=True, slots=True)
class AuditKey:
    """The key that signs checkpoints, a `relay.audit.checkpoints.Signer`."""

    kid: str
    key: Ed25519PrivateKey

    def sign(self, data: bytes, /) -> bytes:
        """See `Signer.sign`."""
        return self.key.sign(data)


def keeping(settings: Settings) -> Keeping:
    """Return how the log is kept. The key is made if its folder is missing.

    Raises:
        ConfigurationError: if the folder has no key to sign with, can't be written, or is the tokens' own.
    """
    audit = settings.audit
    return Keeping(
        signer=_signer(settings),
        sync=Sync(audit.fsync),
        rotate_bytes=audit.rotate_mb << 20,
        rotate_s=audit.rotate_hours * 3600,
        keep_s=audit.keep_days * 86_400,
    )


def copied(settings: Settings) -> Copy | None:
    """Return what copies the log to standard output, if the settings want it."""
    what = settings.audit.stdout
    return None if what == "nothing" else Copy(checkpoints_only=what == "checkpoints")


def _signer(settings: Settings) -> AuditKey:
    folder = settings.audit.keys_dir
    if folder.resolve() == settings.tokens.keys_dir.resolve():
        raise ConfigurationError(
            f"audit.keys_dir: {folder} is tokens.keys_dir too, whose keys are published and sign tokens; name another."
        )
    signing = load_keys(folder).signing if folder.exists() else create_signing_key(folder)
    if signing is None:
        raise ConfigurationError(
            f"audit.keys_dir: {folder} has no private key; make one with `relay keys new --dir {folder}`."
        )
    return AuditKey(signing.kid, signing.key)
