"""The checks before a message reaches the broker, for every way of publishing: key, quota, form, channel.

A success means that the message was checked, numbered, kept as the channel's last value and handed to the fan-out.
It does not mean that a subscriber has received it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import msgspec
import structlog

from relay.audit.base import Auditor
from relay.broker.base import Answer, Broker, Dropped, Outcome, Position
from relay.core.bearer import bearer_token, claimed_name
from relay.core.closes import answer_for
from relay.core.errors import Reason, Refusal
from relay.core.events import Action, Client, Event
from relay.core.log_limit import LogLimit
from relay.core.patterns import covers
from relay.core.publications import Draft, parse_draft
from relay.core.sequencer import Drop
from relay.ingest.summaries import PublicationSummary
from relay.limits.quotas import Quota, QuotaTerms

_log = structlog.get_logger("relay.ingest")

MAX_REMEMBERED_CHANNELS = 65_536
"""Remembered results of whether a key may publish to a channel. Matching the patterns each time costs a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherTerms:
    """One publisher's settings: the SHA-256 digests (hex) of its keys' secrets, its channel patterns and its quota.

    `exclusive` means that no other publisher may have a channel in common. The settings check that at start.
    """

    secret_sha256: tuple[str, ...] = field(repr=False)
    channels: tuple[str, ...]
    exclusive: bool
    quota: QuotaTerms


class Accepted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The position of a published message; of a dropped one, the position of the message that was kept before."""

    channel: str
    position: Position
    dropped: Drop | None = None


class Submitted(NamedTuple):
    """A message that the broker has, without its answer yet. `size` is that of its data; None: a sign of life."""

    channel: str
    size: int | None
    answer: Answer[Outcome] | Answer[Position]


Begun = Accepted | Refusal | Submitted
"""What is known of a message when it was handed to the broker."""


@dataclass(slots=True)
class PublisherCounts:
    """One publisher's counts since the relay's start, for metrics and operators. `bytes` counts published data.

    `stale` and `duplicate` messages were dropped. `connections` is the number of open sockets at /v1/ingest.
    `last_at` is the time of the last published message or sign of life, in Unix seconds; 0 means never.
    `heard_at` is the same time of `time.monotonic`.
    """

    published: int = 0
    bytes: int = 0
    alive: int = 0
    refused: int = 0
    connections: int = 0
    dropped: dict[Drop, int] = field(default_factory=lambda: dict.fromkeys(Drop, 0))
    last_at: float = 0.0
    heard_at: float = 0.0

    @property
    def stale(self) -> int:
        """Messages dropped because their version was not newer."""
        return self.dropped[Drop.STALE]

    @property
    def duplicate(self) -> int:
        """Messages dropped because their idempotency key was known."""
        return self.dropped[Drop.DUPLICATE]

    def count_published(self, size: int) -> None:
        """Count a published message of `size` bytes."""
        self.published += 1
        self.bytes += size
        self.last_at, self.heard_at = time.time(), time.monotonic()

    def count_alive(self) -> None:
        """Count a sign of life."""
        self.alive += 1
        self.last_at, self.heard_at = time.time(), time.monotonic()


CheckKey = Callable[[str, Mapping[str, Sequence[str]]], str | None]
"""Returns whose key a text is: the port of `relay.keys.api_keys.check_bearer`."""


class Ingest:
    """Publishes on behalf of publishers. `counts` has the counts of each, by name."""

    def __init__(
        self,
        publishers: Mapping[str, PublisherTerms],
        *,
        broker: Broker,
        auditor: Auditor,
        check_key: CheckKey,
        publications_recorded: int,
    ) -> None:
        # Both keep publishers that were removed: one of their requests may still be running.
        self.counts: dict[str, PublisherCounts] = {}
        self._quotas: dict[str, Quota] = {}
        self.publishers: Mapping[str, PublisherTerms] = {}
        self._broker = broker
        self._auditor = auditor
        self._check_key = check_key
        self.summary = PublicationSummary(auditor, each=publications_recorded)
        self._log_limit = LogLimit()
        self.may_publish = lru_cache(MAX_REMEMBERED_CHANNELS)(self._covers)
        self.update(publishers)

    def update(self, publishers: Mapping[str, PublisherTerms]) -> None:
        """Use other publishers from now on. Counts stay by name, and so do quotas whose terms are the same.

        Then call `IngestSockets.end_refused`, which closes the sockets of removed keys.
        """
        for name, terms in publishers.items():
            self.counts.setdefault(name, PublisherCounts())
            before = self.publishers.get(name)
            if before is None or before.quota != terms.quota:
                self._quotas[name] = Quota(terms.quota, now=time.monotonic())
        self.publishers = publishers
        self._digests = {name: terms.secret_sha256 for name, terms in publishers.items()}
        self.may_publish.cache_clear()

    @property
    def epoch(self) -> str:
        """The broker's current epoch. When it changes, the last values and idempotency keys are gone."""
        return self._broker.epoch

    def identify(self, authorization: Sequence[str]) -> str | Refusal:
        """Return the publisher's name whose key is in a request's Authorization headers."""
        presented = bearer_token(authorization)
        name = None if isinstance(presented, Refusal) else self._check_key(presented, self._digests)
        return Refusal(reason=Reason.PUBLISHER_UNKNOWN) if name is None else name

    async def publish(self, publisher: str, body: bytes, *, address: str) -> Accepted | Refusal:
        """Publish one message, which comes from `address`.

        Raises:
            MalformedError: if the body is not of the documented form. Nothing was published.
            UnavailableError: if the broker did not answer. It is unknown whether the message was published.
        """
        return await self.end(publisher, self.begin(publisher, body, address=address), address=address)

    def begin(self, publisher: str, body: bytes, *, address: str) -> Begun:
        """Hand one message to the broker. `end` tells what became of it. Raises as `publish` does."""
        if refusal := self.over_quota(publisher):
            return refusal
        self.charge(publisher, len(body))
        return self.submit(publisher, parse_draft(body), address=address)

    async def end(self, publisher: str, begun: Begun, *, address: str) -> Accepted | Refusal:
        """Wait for the answer to a message, if it is not known. Raises as `publish` does."""
        if not isinstance(begun, Submitted):
            return begun
        await begun.answer
        return self.settle(publisher, begun, address=address)

    def over_quota(self, publisher: str) -> Refusal | None:
        """Return a refusal if the publisher has used up its quota for now."""
        if not self._quotas[publisher].wait_s(time.monotonic()):
            return None
        terms = self._quotas[publisher].terms
        quota = " and ".join(filter(None, (terms.rate, terms.byte_rate and f"{terms.byte_rate} bytes")))
        return Refusal(reason=Reason.RATE_LIMITED, detail=f"The quota of {publisher} is {quota}.")

    def charge(self, publisher: str, size: int) -> None:
        """Charge the quota for a message of `size` bytes. Call it before parsing: a malformed message costs as much."""
        self._quotas[publisher].charge(time.monotonic(), size)

    @property
    def quotas(self) -> Mapping[str, Quota]:
        """The quotas of all publishers, by name."""
        return self._quotas

    def quota(self, publisher: str) -> Quota:
        """Return a publisher's quota. Its methods need the time of `time.monotonic()`."""
        return self._quotas[publisher]

    def submit(self, publisher: str, draft: Draft, *, address: str) -> Begun:
        """Hand a message to the broker that is already parsed and charged.

        Messages are published in the order of the calls. Call `settle` when the answer has come. Raises as `publish`.
        """
        channel = draft.channel
        if not self.may_publish(publisher, channel):
            return Refusal(
                reason=Reason.CHANNEL_FORBIDDEN,
                detail=f"The key {publisher} may not publish to {channel}.",
            )
        now = int(time.time() * 1000)
        size: int | None = None
        answer: Answer[Outcome] | Answer[Position]
        if draft.alive:
            answer = self._broker.alive(channel, ts=now)
        else:
            size = len(draft.data)
            answer = self._broker.publish(draft, ts=now)
        if answer.done():
            return self._count(publisher, address, channel, size, answer.result())
        return Submitted(channel, size, answer)

    def settle(self, publisher: str, submitted: Submitted, *, address: str) -> Accepted:
        """Count a message whose answer has come. Raises as `publish` does."""
        channel, size, answer = submitted
        return self._count(publisher, address, channel, size, answer.result())

    def _count(
        self, publisher: str, address: str, channel: str, size: int | None, outcome: Outcome
    ) -> Accepted:
        counts = self.counts[publisher]
        if isinstance(outcome, Dropped):
            counts.dropped[outcome.why] += 1
            self.summary.dropped(publisher, address, channel, outcome.position)
            return Accepted(channel=channel, position=outcome.position, dropped=outcome.why)
        if size is None:
            counts.count_alive()
            self.summary.alive(publisher, address, channel, outcome)
        else:
            counts.count_published(size)
            self.summary.published(publisher, address, channel, outcome, size)
        return Accepted(channel=channel, position=outcome)

    async def reset(self, channel: str) -> bool:
        """Forget a channel's versions and idempotency keys. Returns False if nothing was ever published there.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        return await self._broker.reset(channel)

    async def remove(self, channel: str, *, at: Position | None = None) -> bool:
        """Forget a channel with its value and its history. See `Broker.remove`."""
        return await self._broker.remove(channel, at=at)

    def deny(
        self,
        refusal: Refusal,
        client: Client,
        *,
        status: int,
        publisher: str = "",
        count: int = 1,
        authorization: Sequence[str] = (),
    ) -> None:
        """Record a refused handshake or refused messages in the audit log, `count` of them in one record.

        Without a `publisher`, the record has the name that the key in `authorization` claims.

        The log gets one line a minute for each address, publisher and reason.
        """
        if publisher:
            self.counts[publisher].refused += count
        claimed = "" if publisher else claimed_name(authorization)
        self._auditor.note(
            Event(
                action=Action.PUBLISH_DENIED,
                reason=refusal.reason,
                client=client,
                status=status,
                relay={"publisher": {"id": publisher}, "detail": refusal.detail, "count": count}
                | ({"claimed": {"publisher": claimed}} if claimed else {}),
            )
        )
        left_out = self._log_limit.admit((client.address, publisher, refusal.reason), time.monotonic())
        if left_out is not None:
            _log.warning(
                "a publisher was refused",
                address=client.address,
                publisher=publisher,
                **({"claimed_publisher": claimed} if claimed else {}),
                reason=refusal.reason.value,
                detail=str(refusal),
                status=status,
                left_out=left_out,
            )

    def _covers(self, publisher: str, channel: str) -> bool:
        terms = self.publishers.get(publisher)  # None if it was removed while its request was running
        return terms is not None and any(covers(pattern, channel) for pattern in terms.channels)


class RefusalSummary:
    """The refusals of one batch or frame: an error for each message, and one audit record for each reason."""

    def __init__(self) -> None:
        self._details: dict[Reason, list[str]] = {}

    def __contains__(self, reason: Reason) -> bool:
        """Tell whether a message was refused for this reason."""
        return reason in self._details

    def add(self, refusal: Refusal) -> Mapping[str, object]:
        """Add one refusal and return the members of the error that the publisher gets."""
        answer = answer_for(refusal.reason)
        self._details.setdefault(refusal.reason, []).append(refusal.detail)
        return {
            "code": answer.code,
            "message": refusal.detail or answer.message,
            "retryable": answer.retryable,
        }

    def record(self, ingest: Ingest, client: Client, *, publisher: str) -> None:
        """Record them in the audit log. A thousand bad messages of one reason are one record with a count."""
        for reason, details in self._details.items():
            ingest.deny(
                Refusal(reason=reason, detail=details[0]),
                client,
                status=answer_for(reason).status,
                publisher=publisher,
                count=len(details),
            )
