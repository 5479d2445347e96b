"""Takes one publication: whose key, which channel, what bytes, and then the broker.

A success means: checked, numbered, kept as the channel's last value, handed to the fan-out. It does not mean
that anybody has received it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from relay.audit.base import Auditor
from relay.broker.base import Broker, Position
from relay.core.channels import covers
from relay.core.errors import Reason, Refusal
from relay.core.events import Action, Client, Event
from relay.core.publications import parse_draft


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherTerms:
    """A backend team: the SHA-256 digests (hex) of its keys' secrets, and the patterns it may publish to."""

    secret_sha256: tuple[str, ...] = field(repr=False)
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A publication that was taken, and where it stands."""

    channel: str
    position: Position


CheckKey = Callable[[str, Mapping[str, Sequence[str]]], str | None]


class Ingest:
    """Publishes on behalf of publishers."""

    def __init__(
        self,
        publishers: Mapping[str, PublisherTerms],
        *,
        broker: Broker,
        auditor: Auditor,
        check_key: CheckKey,
    ) -> None:
        self._publishers = publishers
        self._digests = {name: terms.secret_sha256 for name, terms in publishers.items()}
        self._broker = broker
        self._auditor = auditor
        self._check_key = check_key

    def identify(self, presented: str) -> str | Refusal:
        """Return the name of the publisher whose key was presented."""
        name = self._check_key(presented, self._digests)
        return Refusal(reason=Reason.PUBLISHER_UNKNOWN) if name is None else name

    async def publish(self, publisher: str, body: bytes) -> Accepted | Refusal:
        """Publish one message.

        Raises:
            MalformedError: if the body is not as documented; nothing was published.
            UnavailableError: if the broker can't take it now; nothing was published.
        """
        draft = parse_draft(body)
        if not any(covers(pattern, draft.channel) for pattern in self._publishers[publisher].channels):
            return Refusal(
                reason=Reason.CHANNEL_FORBIDDEN,
                detail=f"The key {publisher} may not publish to {draft.channel}.",
            )
        position = await self._broker.publish(
            draft.channel, bytes(draft.data), ts=int(time.time() * 1000), source_ts=draft.source_ts
        )
        return Accepted(channel=draft.channel, position=position)

    def deny(
        self, refusal: Refusal, client: Client, *, status: int, publisher: str = "", count: int = 1
    ) -> None:
        """Note refused publications in the audit log; `count` of them at once for a batch."""
        self._auditor.note(
            Event(
                action=Action.PUBLISH_DENIED,
                reason=refusal.reason,
                client=client,
                status=status,
                relay={"publisher": {"id": publisher}, "detail": refusal.detail, "count": count},
            )
        )
