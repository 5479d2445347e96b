"""What operators see of the parts: numbers, channels, publishers, connections, and records of the audit log.

All of it is made for each request, from what the parts keep anyway. Nothing is measured in between.
"""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from relay import __version__
from relay.audit.files import log_files
from relay.audit.query.explain import explain
from relay.audit.query.records import from_parsed
from relay.audit.query.timeline import RecentTimeline, recent_timeline
from relay.audit.recent import RecentQuery, find_recent
from relay.core.channels import Channel
from relay.core.errors import Reason, UnavailableError
from relay.core.patterns import covers
from relay.metrics.readings import EndpointReading, PublisherReading, Readings
from relay.ops.audit_listing import AuditPage
from relay.server.options import endpoint_of
from relay.server.parts import Parts
from relay.stream.registry import ConnectionCursor, Registry

Answer = TypeVar("Answer")


class Views:
    """The views of one relay."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._endpoint_of: Callable[[str], str | None] = endpoint_of(parts.settings)

    def readings(self) -> Readings:
        """Return all numbers, for /metrics and /v1/stats."""
        parts, now = self._parts, time.time()
        return Readings(
            version=__version__,
            role=parts.role.value,
            node=parts.audit_log.node,
            at=now,
            started_at=parts.started_at,
            stopping=parts.stopping,
            events=parts.tally.counts(),
            hub=replace(parts.fanout.hub.counters),
            turns=parts.fanout.turns,
            flushes=parts.fanout.flushes,
            loop_lag=parts.loop_lag,
            endpoints=self._endpoints(now),
            publishers=self._publishers(now),
            waiting=parts.stream.unauthenticated.total,
            audit_waiting=parts.audit_log.lag,
            audit_lost=parts.audit_log.lost,
            state_waiting=parts.state.waiting,
        )

    def channels(self, after: str, limit: int, pattern: str) -> tuple[int, Sequence[Mapping[str, Any]]]:
        """Return how many channels with a value match `pattern`, and the first `limit` of them after `after`."""
        matching = [
            channel
            for channel in self._parts.fanout.hub.channels()
            if not pattern or covers(pattern, channel.name)
        ]
        page = heapq.nsmallest(
            limit, (channel for channel in matching if channel.name > after), key=lambda channel: channel.name
        )
        now = time.time()
        return len(matching), [self._channel(channel, now) for channel in page]

    def publishers(self) -> Sequence[Mapping[str, Any]]:
        """Return every publisher of the settings, with its terms and its counts."""
        ingest = self._parts.ingest
        return [
            {
                "publisher": name,
                "channels": terms.channels,
                "exclusive": terms.exclusive,
                "rate": terms.quota.rate,
                "byte_rate": terms.quota.byte_rate,
                "connections": counts.connections,
                "published": counts.published,
                "bytes": counts.bytes,
                "alive": counts.alive,
                "refused": counts.refused,
                "stale": counts.stale,
                "duplicate": counts.duplicate,
                "last_at": counts.last_at or None,
            }
            for name, terms in ingest.publishers.items()
            for counts in [ingest.counts[name]]
        ]

    def connections(self, cursor: ConnectionCursor, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the `limit` oldest connections that are younger than `cursor`."""
        return _connections(self._parts.stream.registry, cursor, limit)

    async def audit(self, wanted: RecentQuery) -> AuditPage:
        """Return the newest records of the audit log that are wanted.

        Raises:
            UnavailableError: if the log can't be read.
        """
        return await self._of_the_log(partial(_page, wanted=wanted))

    async def story(self, about: str, limit: int) -> RecentTimeline:
        """Return the newest steps of the story of a token, a connection, a session or a user.

        Raises:
            UnavailableError: if the log can't be read.
        """
        return await self._of_the_log(partial(recent_timeline, about=about, limit=limit))

    async def _of_the_log(self, read: Callable[[Sequence[Path]], Answer]) -> Answer:
        """Read the log's files in a thread."""
        path = self._parts.settings.audit.path
        try:
            return await anyio.to_thread.run_sync(lambda: read(log_files(path)))
        except OSError as error:
            raise UnavailableError(
                Reason.AUDIT_UNAVAILABLE, f"The log can't be read: {error.strerror}."
            ) from None

    def _endpoints(self, now: float) -> Mapping[str, EndpointReading]:
        ages: dict[str | None, list[float]] = {name: [] for name in self._parts.settings.sockets}
        stale = dict.fromkeys(ages, 0)
        for channel in self._parts.fanout.hub.channels():
            name = self._endpoint_of(channel.name)
            if channel.last is not None and name in ages:  # a publisher's channel may belong to none
                ages[name].append(max(0.0, now - channel.last.ts / 1000))
                stale[name] += channel.stale
        live = self._parts.stream.registry.by_endpoint
        return {
            name: EndpointReading(
                connections=live[name],
                channels=len(ages[name]),
                stale=stale[name],
                newest_s=min(ages[name], default=None),
                oldest_s=max(ages[name], default=None),
            )
            for name in self._parts.settings.sockets
        }

    def _publishers(self, now: float) -> Mapping[str, PublisherReading]:
        return {
            name: PublisherReading(
                published=counts.published,
                bytes=counts.bytes,
                alive=counts.alive,
                refused=counts.refused,
                stale=counts.stale,
                duplicate=counts.duplicate,
                connections=counts.connections,
                silent_s=max(0.0, now - counts.last_at) if counts.last_at else None,
            )
            for name, counts in self._parts.ingest.counts.items()
        }

    def _channel(self, channel: Channel, now: float) -> Mapping[str, Any]:
        assert channel.last is not None, "channels() returns those that have a value"
        return {
            "channel": channel.name,
            "endpoint": self._endpoint_of(channel.name),
            "mode": channel.options.mode.value,
            "epoch": channel.last.epoch,
            "seq": channel.last.seq,
            "last_at": channel.last.ts / 1000,
            "age_s": round(max(0.0, now - channel.last.ts / 1000), 3),
            "stale": channel.stale,
            "subscribers": channel.subscriber_count,
        }


def _page(paths: Sequence[Path], *, wanted: RecentQuery) -> AuditPage:
    found = find_recent(paths, wanted)
    told = [explain(record) if (record := from_parsed(one)) else "" for one in found.records]
    return AuditPage(records=found.records, told=told, whole=found.whole)


def _connections(registry: Registry, cursor: ConnectionCursor, limit: int) -> Sequence[Mapping[str, Any]]:
    now = time.time()
    return [
        {
            "id": str(connection.id),
            "user": admission.claims.subject,
            "endpoint": admission.attempt.endpoint.name,
            "scope": list(admission.claims.channels),
            "session": admission.claims.session_ref,
            "token": admission.claims.jti,
            "key": admission.kid,
            "origin": admission.attempt.origin,
            "address": admission.attempt.client.address,
            "opened_at": connection.opened_at,
            "age_s": round(max(0.0, now - connection.opened_at), 1),
            "messages_out": connection.messages_out,
        }
        for connection, admission in registry.after(cursor, limit=limit)
    ]
