"""What is kept: keys, audit log and state. Who else can change it, and whether it outlives a restart."""

import stat
from collections.abc import Iterator
from pathlib import Path

from relay.doctor.base import Check, Deployment, Severity
from relay.keys.files import load_records
from relay.keys.lifecycle import KeyState, key_statuses

OLD_KEY_DAYS = 180
"""Age from which a signing key should be replaced: what was copied with a backup by then is worth nothing."""
_VOLATILE = {
    "tmpfs": "memory",
    "ramfs": "memory",
    "overlay": "a container's own layer",
}


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:  # not there yet
        return None


def _keys_writable(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    for folder in (settings.tokens.keys_dir, settings.audit.keys_dir):
        for path in (folder, *sorted(folder.glob("*.public.jwk.json"))):
            mode = _mode(path)
            if mode is not None and mode & 0o022:
                yield f"{path} can be written by others (mode {mode:04o})"


def _old_key(deployment: Deployment) -> Iterator[str]:
    tokens = deployment.settings.tokens
    if tokens.jwks_url is not None and not tokens.keys_dir.exists():
        return  # a stream on its own: the keys are the issuer's to change
    records = load_records(tokens.keys_dir)
    for status in key_statuses(records, now=deployment.now):
        days = (deployment.now - status.since) / 86_400
        # a key that came without its public file does not tell its age
        if status.state is KeyState.SIGNING and status.since > 0 and days > OLD_KEY_DAYS:
            yield f"the key {status.key.kid} has been signing for {days:.0f} days"


def _audit_exposed(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.audit.path
    mode, folder = _mode(path), _mode(path.parent)
    if path.is_file() and mode is not None and mode & 0o077:
        yield f"{path} is open to others (mode {mode:04o})"
    if path.is_file() and folder is not None and folder & 0o022 and not folder & stat.S_ISVTX:
        yield f"{path.parent} can be written by others (mode {folder:04o}), who can replace the log"


def _audit_lost(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.audit.path
    if path.exists() and not path.is_file():
        yield f"audit.path is {path}, which keeps nothing"
    elif (kind := deployment.filesystem_of(path)) in _VOLATILE:
        yield f"audit.path is {path}, in {_VOLATILE[kind]} ({kind})"


def _state_exposed(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.engine.state_path
    mode = _mode(path)
    if mode is not None and mode & 0o022:
        yield f"{path} can be written by others (mode {mode:04o})"


def _state_lost(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.engine.state_path
    if (kind := deployment.filesystem_of(path)) in _VOLATILE:
        yield f"engine.state_path is {path}, in {_VOLATILE[kind]} ({kind})"


CHECKS = (
    Check(
        name="keys-writable",
        severity=Severity.ERROR,
        finds="A keys folder (tokens.keys_dir, audit.keys_dir), or a public key in it, can be written by others.",
        means="Who puts a public key there has tokens accepted that they sign, or an audit log of their own.",
        do="chmod 700 the folder, and give it to the relay's user.",
        look=_keys_writable,
    ),
    Check(
        name="old-signing-key",
        severity=Severity.WARNING,
        finds=f"The key that signs has done so for more than {OLD_KEY_DAYS} days.",
        means="A key that is never changed can't be changed in a hurry either, and backups of it add up.",
        do="relay keys rotate, and do it regularly.",
        look=_old_key,
    ),
    Check(
        name="audit-lost",
        severity=Severity.ERROR,
        finds="The audit log goes to a device, into memory, or into a container's own layer.",
        means="After a restart nobody can say who got which token.",
        do="Set audit.path to a file on a disk or a volume that is kept.",
        look=_audit_lost,
    ),
    Check(
        name="audit-exposed",
        severity=Severity.WARNING,
        finds="The audit log can be read by others than its owner, or they can replace it.",
        means="It says who watched what from where; and a log that others can exchange proves nothing.",
        do="chmod 600 the file, and take write access to its folder from others.",
        look=_audit_exposed,
    ),
    Check(
        name="state-lost",
        severity=Severity.WARNING,
        finds="The state file is in memory, or in a container's own layer.",
        means="After a restart revoked sessions get tokens again, and a token of the last 30 seconds works twice.",
        do="Set engine.state_path to a file on a disk or a volume that is kept.",
        look=_state_lost,
    ),
    Check(
        name="state-exposed",
        severity=Severity.ERROR,
        finds="The state file can be written by others than its owner.",
        means="They can lift revocations and have used tokens work again.",
        do="chmod 600 the file.",
        look=_state_exposed,
    ),
)
