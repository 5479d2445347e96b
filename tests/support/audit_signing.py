"""A signer for the tests of checkpoints, and logs that are kept with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.audit.chain import Link
from relay.audit.files import log_files
from relay.audit.jsonl import JsonlAuditor
from relay.audit.verdict import Verdict
from relay.audit.verify import read_lines, verify_files
from relay.audit.writer import LogOptions
from relay.core.jws import VerifyKey
from relay.keys.jwks import verify_key
from relay.server.options import AuditKey
from tests.support.audit_logs import an_event


def a_key() -> AuditKey:
    """Return a new key."""
    key = Ed25519PrivateKey.generate()
    return AuditKey(verify_key(key.public_key()).kid, key)


SIGNER = a_key()
KEYS: Mapping[str, VerifyKey] = {SIGNER.kid: verify_key(SIGNER.key.public_key())}
SIGNED = LogOptions(signer=SIGNER)


async def write(path: Path, count: int, options: LogOptions = SIGNED, *, batch: int = 50) -> None:
    """Have a real auditor open the log, write `count` events in so large batches, and close it."""
    auditor = JsonlAuditor.open(path, node="node-1", options=options)
    for number in range(count):
        auditor.note(an_event(number))
        if number % batch == batch - 1:
            await auditor.record(an_event(number))
    await auditor.aclose()


def verified(files: Sequence[Path], head: Link | None = None) -> Verdict:
    """Verify files with the signer's key."""
    logs = [file.open("rb") for file in files]
    try:
        return verify_files(map(read_lines, logs), head=head, keys=KEYS)
    finally:
        for log in logs:
            log.close()


def all_verified(path: Path, head: Link | None = None) -> Verdict:
    """Verify all files of the log at `path`."""
    return verified(log_files(path), head)
