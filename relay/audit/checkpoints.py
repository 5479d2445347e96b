"""Checkpoints: records that sign the log's place, so that nobody without the audit key can write it anew.

A chain alone keeps nobody from hashing a whole log again. A checkpoint is a record like any other, with a signature
over the place before it; whatever is changed above it, the signature no longer fits. What stands below the last
checkpoint is proven by a head kept elsewhere only: at most `EVERY` records, or a minute.

The signed bytes are UTF-8: `relay.audit.checkpoint.v1`, the head before the record (`writer:seq:hash`), its
`@timestamp` and its kind, each on a line of its own, the last one without a newline. `relay.checkpoint.signature` is
the Ed25519 signature (RFC 8032) in base64url without padding, `kid` the RFC 7638 thumbprint's first 16 hex digits.
"""

import base64
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from relay.core.events import Action, Event
from relay.core.jws import VerifyKey

EVERY = 1000
"""Records after which a checkpoint is due. A signature costs 51 µs, so 0.05 µs a record. Verification holds the log
to it: a forger can't make do by leaving the checkpoints out."""


class Signer(Protocol):
    """The audit's signing key. It never signs anything else and is in no JWKS."""

    @property
    def kid(self) -> str:
        """Its name."""
        ...

    def sign(self, data: bytes, /) -> bytes:
        """Return the Ed25519 signature of `data`."""
        ...


class Moment(StrEnum):
    """When a checkpoint was made."""

    OPENED = "opened"
    """A relay began, or went on with, the log."""
    INTERVAL = "interval"
    ROTATED = "rotated"
    """The first record of another file; the chain goes on."""
    CLOSED = "closed"
    """The relay stopped in order. Where another record is the last, it died, and may have taken events with it."""


class CheckpointDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about itself. `oldest` is the first record that the log kept then."""

    kid: Annotated[str, msgspec.Meta(max_length=128)]
    signature: Annotated[str, msgspec.Meta(max_length=128)]
    moment: Moment
    oldest: int = 1


def checkpoint_event(signer: Signer, *, head: str, at: str, moment: Moment, oldest: int) -> Event:
    """Return the event that goes after `head` at the time `at`, as its record will have it."""
    signature = signer.sign(_signed(head, at, moment))
    note: dict[str, Any] = {
        "kid": signer.kid,
        "moment": moment.value,
        "oldest": oldest,
        "signature": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
    }
    return Event(action=Action.AUDIT_CHECKPOINT, relay={"checkpoint": note})


def is_genuine(note: CheckpointDetails, keys: Mapping[str, VerifyKey], *, head: str, at: str) -> bool:
    """Tell whether the checkpoint after `head` was signed by one of `keys`."""
    key = keys.get(note.kid)
    try:
        signature = base64.urlsafe_b64decode(note.signature + "=" * (-len(note.signature) % 4))
    except ValueError:
        return False
    return key is not None and key.verifies(_signed(head, at, note.moment), signature)


def _signed(head: str, at: str, moment: Moment) -> bytes:
    return "\n".join(("relay.audit.checkpoint.v1", head, at, moment.value)).encode()
