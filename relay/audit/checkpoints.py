"""Checkpoints: records that sign the log's head, so that nobody can rewrite the log without the audit key.

A hash chain alone does not prevent that: anybody can compute all hashes of a log again. A checkpoint is a record with
a signature over the link before it. If a record above it is changed, the signature no longer fits. Records below the
last checkpoint (at most `EVERY`, or those of a minute) are proven only by a head that is kept in another place.

The signed bytes are UTF-8: `relay.audit.checkpoint.v1`, the head before the record (`writer:seq:hash`), the record's
`@timestamp` and its moment, each on its own line, the last one without a newline. `relay.checkpoint.signature` is the
Ed25519 signature (RFC 8032) in base64url without padding. `kid` is the first 16 hex digits of the RFC 7638 thumbprint.
"""

import base64
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from relay.core.events import Action, Event
from relay.core.jws import VerifyKey

EVERY = 1000
"""Records after which a checkpoint is due. A signature costs 51 µs, which is 0.05 µs a record. Verification requires
this distance, or a forger could leave the checkpoints out."""


class Signer(Protocol):
    """The signing key of the audit log. It signs nothing else, and it is in no JWKS."""

    @property
    def kid(self) -> str:
        """The key's name."""
        ...

    def sign(self, data: bytes, /) -> bytes:
        """Return the Ed25519 signature of `data`."""
        ...


class Moment(StrEnum):
    """When a checkpoint was made."""

    OPENED = "opened"
    """A relay created the log, or opened an existing one."""
    INTERVAL = "interval"
    ROTATED = "rotated"
    """The first record of the next file of the same chain."""
    CLOSED = "closed"
    """The relay stopped in order. If another record is the last one, the relay was killed and may have lost events."""


class CheckpointDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The details of a checkpoint. `oldest` is the number of the first record that the log still had then."""

    kid: Annotated[str, msgspec.Meta(max_length=128)]
    signature: Annotated[str, msgspec.Meta(max_length=128)]
    moment: Moment
    oldest: int = 1


def checkpoint_event(signer: Signer, *, head: str, at: str, moment: Moment, oldest: int) -> Event:
    """Return the event of a checkpoint that follows `head`. `at` is the `@timestamp` of its record."""
    signature = signer.sign(_signed(head, at, moment))
    details: dict[str, Any] = {
        "kid": signer.kid,
        "moment": moment.value,
        "oldest": oldest,
        "signature": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
    }
    return Event(action=Action.AUDIT_CHECKPOINT, relay={"checkpoint": details})


def is_genuine(checkpoint: CheckpointDetails, keys: Mapping[str, VerifyKey], *, head: str, at: str) -> bool:
    """Return whether the checkpoint after `head` was signed by one of `keys`."""
    key = keys.get(checkpoint.kid)
    try:
        signature = base64.urlsafe_b64decode(checkpoint.signature + "=" * (-len(checkpoint.signature) % 4))
    except ValueError:
        return False
    return key is not None and key.verifies(_signed(head, at, checkpoint.moment), signature)


def _signed(head: str, at: str, moment: Moment) -> bytes:
    return "\n".join(("relay.audit.checkpoint.v1", head, at, moment.value)).encode()
