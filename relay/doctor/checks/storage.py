"""Checks of keys, audit log and state on disk: who can change them, and whether they outlive a restart."""

import stat
from collections.abc import Iterator
from pathlib import Path

from relay.doctor.base import Check, Deployment, Severity
from relay.keys.files import load_records
from relay.keys.lifecycle import KeyState, key_statuses

OLD_KEY_DAYS = 180
"""Days after which a signing key should be replaced. A copy of the old key in a backup is then worthless."""
_VOLATILE = {
    "tmpfs": "memory",
    "ramfs": "memory",
    "overlay": "a container's writable layer",
}


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:  # it does not exist yet
        return None


def _keys_writable(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    for folder in (settings.tokens.keys_dir, settings.audit.keys_dir):
        for path in (folder, *sorted(folder.glob("*.public.jwk.json"))):
            mode = _mode(path)
            if mode is not None and mode & 0o022:
                yield f"{path} can be written by other users (mode {mode:04o})"


def _old_key(deployment: Deployment) -> Iterator[str]:
    tokens = deployment.settings.tokens
    if tokens.jwks_url is not None and not tokens.keys_dir.exists():
        return  # a stream listener in a process of its own: the issuer rotates the keys
    records = load_records(tokens.keys_dir)
    for status in key_statuses(records, now=deployment.now):
        days = (deployment.now - status.since) / 86_400
        # a key without its public file has no age
        if status.state is KeyState.SIGNING and status.since > 0 and days > OLD_KEY_DAYS:
            yield f"the key {status.key.kid} has been signing for {days:.0f} days"


def _audit_exposed(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.audit.path
    mode, folder = _mode(path), _mode(path.parent)
    if path.is_file() and mode is not None and mode & 0o077:
        yield f"{path} can be read or written by other users (mode {mode:04o})"
    if path.is_file() and folder is not None and folder & 0o022 and not folder & stat.S_ISVTX:
        yield f"{path.parent} can be written by other users (mode {folder:04o}), who can replace the log"


def _audit_lost(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.audit.path
    if path.exists() and not path.is_file():
        yield f"audit.path is {path}, which stores nothing"
    elif (kind := deployment.filesystem_of(path)) in _VOLATILE:
        yield f"audit.path is {path}, in {_VOLATILE[kind]} ({kind})"


def _state_exposed(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.engine.state_path
    mode = _mode(path)
    if mode is not None and mode & 0o022:
        yield f"{path} can be written by other users (mode {mode:04o})"


def _state_lost(deployment: Deployment) -> Iterator[str]:
    path = deployment.settings.engine.state_path
    if (kind := deployment.filesystem_of(path)) in _VOLATILE:
        yield f"engine.state_path is {path}, in {_VOLATILE[kind]} ({kind})"


CHECKS = (
    Check(
        name="keys-writable",
        severity=Severity.ERROR,
        finds="A keys folder (tokens.keys_dir, audit.keys_dir) or a public key in it can be written by other users.",
        means="A user who puts a public key there can sign tokens that the relay accepts, or an audit log.",
        do="chmod 700 the folder, and make the relay's user its owner.",
        run=_keys_writable,
    ),
    Check(
        name="old-signing-key",
        severity=Severity.WARNING,
        finds=f"The signing key has signed for more than {OLD_KEY_DAYS} days.",
        means="A rotation that was never practised may fail in an emergency, and old backups hold copies of the key.",
        do="Run `relay keys rotate`, and do it regularly.",
        run=_old_key,
    ),
    Check(
        name="audit-lost",
        severity=Severity.ERROR,
        finds="The audit log is a device, in memory, or in a container's writable layer.",
        means="After a restart, the record of who got which token is lost.",
        do="Set audit.path to a file on a permanent disk or volume.",
        run=_audit_lost,
    ),
    Check(
        name="audit-exposed",
        severity=Severity.WARNING,
        finds="Other users than its owner can read, write or replace the audit log.",
        means="The log tells who subscribed to what and from where. A log that others can replace proves nothing.",
        do="chmod 600 the file, and remove other users' write access to its folder.",
        run=_audit_exposed,
    ),
    Check(
        name="state-lost",
        severity=Severity.WARNING,
        finds="The state file is in memory, or in a container's writable layer.",
        means="After a restart revoked sessions get tokens again, and tokens of the last 30 seconds work twice.",
        do="Set engine.state_path to a file on a permanent disk or volume.",
        run=_state_lost,
    ),
    Check(
        name="state-exposed",
        severity=Severity.ERROR,
        finds="Other users than its owner can write the state file.",
        means="They can remove revocations and make used tokens valid again.",
        do="chmod 600 the file.",
        run=_state_exposed,
    ),
)
