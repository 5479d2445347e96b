"""Takes one publication: whose key, which channel, what bytes, and then the broker.

A success means: checked, numbered, kept as the channel's last value, handed to the fan-out. It does not mean
that anybody has received it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from relay.audit.base import Auditor
from relay.broker.base import Broker, Dropped, Position
from relay.core.bearer import bearer_token
from relay.core.errors import Reason, Refusal
from relay.core.events import Action, Client, Event
from relay.core.patterns import covers
from relay.core.publications import Draft, parse_draft
from relay.core.sequencer import Drop
from relay.ingest.counts import PublisherCounts
from relay.limits.quotas import Quota, QuotaTerms

KNOWN_CHANNELS = 65_536
"""Answers remembered of whether a key may publish to a channel: some patterns each time would cost a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherTerms:
    """A backend team: the SHA-256 digests (hex) of its keys' secrets, and what it may publish, and how much.

    `exclusive`: nobody else has channels in common with it; the settings see to that.
    """

    secret_sha256: tuple[str, ...] = field(repr=False)
    channels: tuple[str, ...]
    exclusive: bool
    quota: QuotaTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A publication that was taken, and where it stands; or one that was dropped, and where the kept one stands."""

    channel: str
    position: Position
    dropped: Drop | None = None


CheckKey = Callable[[str, Mapping[str, Sequence[str]]], str | None]


class Ingest:
    """Publishes on behalf of publishers. `counts` has what each of them did."""

    def __init__(
        self,
        publishers: Mapping[str, PublisherTerms],
        *,
        broker: Broker,
        auditor: Auditor,
        check_key: CheckKey,
    ) -> None:
        self.counts: Mapping[str, PublisherCounts] = {name: PublisherCounts() for name in publishers}
        self.publishers = publishers
        self._quotas = {name: Quota(terms.quota, now=time.monotonic()) for name, terms in publishers.items()}
        self._digests = {name: terms.secret_sha256 for name, terms in publishers.items()}
        self._broker = broker
        self._auditor = auditor
        self._check_key = check_key
        self.may_publish = lru_cache(KNOWN_CHANNELS)(self._covers)

    @property
    def epoch(self) -> str:
        """The broker's epoch now: when it changes, last values and keys are gone."""
        return self._broker.epoch

    def identify(self, authorization: Sequence[str]) -> str | Refusal:
        """Return the publisher's name whose key is in a request's Authorization headers."""
        presented = bearer_token(authorization)
        name = None if isinstance(presented, Refusal) else self._check_key(presented, self._digests)
        return Refusal(reason=Reason.PUBLISHER_UNKNOWN) if name is None else name

    async def publish(self, publisher: str, body: bytes) -> Accepted | Refusal:
        """Publish one message.

        Raises:
            MalformedError: if the body is not as documented; nothing was published.
            UnavailableError: if the broker can't take it now; nothing was published.
        """
        if refusal := self.over_quota(publisher):
            return refusal
        self.charge(publisher, len(body))
        return await self.take(publisher, parse_draft(body))

    def over_quota(self, publisher: str) -> Refusal | None:
        """Return why a publisher has to wait, if it has."""
        if not self._quotas[publisher].wait_s(time.monotonic()):
            return None
        terms = self.publishers[publisher].quota
        quota = " and ".join(filter(None, (terms.rate, terms.byte_rate and f"{terms.byte_rate} bytes")))
        return Refusal(reason=Reason.RATE_LIMITED, detail=f"The quota of {publisher} is {quota}.")

    def charge(self, publisher: str, size: int) -> None:
        """Charge the quota for a message of `size` bytes, before anybody looks at it: a bad one costs as much."""
        self._quotas[publisher].charge(time.monotonic(), size)

    def quota(self, publisher: str) -> Quota:
        """Return a publisher's quota, to be asked with `time.monotonic()`."""
        return self._quotas[publisher]

    async def take(self, publisher: str, draft: Draft) -> Accepted | Refusal:
        """Publish one message that was parsed and charged. Raises as `publish` does."""
        channel = draft.channel
        if not self.may_publish(publisher, channel):
            return Refusal(
                reason=Reason.CHANNEL_FORBIDDEN,
                detail=f"The key {publisher} may not publish to {channel}.",
            )
        counts = self.counts[publisher]
        now = int(time.time() * 1000)
        if draft.alive:
            position = await self._broker.alive(channel, ts=now)
            counts.note_alive()
            return Accepted(channel=channel, position=position)
        outcome = await self._broker.publish(draft, ts=now)
        if isinstance(outcome, Dropped):
            counts.dropped[outcome.why] += 1
            return Accepted(channel=channel, position=outcome.position, dropped=outcome.why)
        counts.note_published(len(bytes(draft.data)))
        return Accepted(channel=channel, position=outcome)

    async def reset(self, channel: str) -> bool:
        """Forget a channel's versions and keys. False: nothing was ever published there.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        return await self._broker.reset(channel)

    def deny(
        self, refusal: Refusal, client: Client, *, status: int, publisher: str = "", count: int = 1
    ) -> None:
        """Note refused publications in the audit log; `count` of them at once for a batch."""
        if publisher:
            self.counts[publisher].refused += count
        self._auditor.note(
            Event(
                action=Action.PUBLISH_DENIED,
                reason=refusal.reason,
                client=client,
                status=status,
                relay={"publisher": {"id": publisher}, "detail": refusal.detail, "count": count},
            )
        )

    def _covers(self, publisher: str, channel: str) -> bool:
        return any(covers(pattern, channel) for pattern in self.publishers[publisher].channels)
