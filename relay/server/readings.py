"""The readings of a whole relay, for metrics and operators.

They are made on request from counts that the parts keep anyway. Nothing is measured in between.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from relay import __version__
from relay.metrics.readings import EndpointReading, ProxyReading, PublisherReading, Readings
from relay.server.options import endpoint_of
from relay.server.parts import Parts
from relay.stream.hub_clock import steady_ms


class ReadingsSource:
    """Reads one relay."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._endpoint_of: Callable[[str], str | None] = endpoint_of(parts.settings)

    def read(self) -> Readings:
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
            compression=replace(parts.stream.compressor.counters),
            turns=parts.fanout.turns,
            flushes=parts.fanout.flushes,
            loop_lag=parts.loop_lag,
            endpoints=self._endpoints(steady_ms()),
            publishers=self._publishers(time.monotonic()),
            waiting=parts.stream.unauthenticated.total,
            shed=parts.shedder.refused,
            audit_waiting=parts.audit_log.lag,
            audit_lost=parts.audit_log.lost,
            state_waiting=parts.state.waiting,
            limits_alone=parts.engine.limits.alone if parts.engine is not None else 0,
            engine=None if parts.engine is None else parts.engine.read(),
            proxy=ProxyReading(
                answers=dict(parts.proxy.answers) if parts.proxy is not None else {},
                calls=parts.open_calls.count,
                connections=parts.proxy.connections if parts.proxy is not None else 0,
            ),
        )

    def _endpoints(self, now_ms: int) -> Mapping[str, EndpointReading]:
        ages: dict[str | None, list[float]] = {name: [] for name in self._parts.settings.sockets}
        stale = dict.fromkeys(ages, 0)
        for channel in self._parts.fanout.hub.channels():
            name = self._endpoint_of(channel.name)
            if channel.last is not None and name in ages:  # a publisher's channel may belong to none
                ages[name].append((now_ms - channel.valued_ms) / 1000)
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
                silent_s=now - counts.heard_at if counts.last_at else None,
            )
            for name in self._parts.ingest.publishers
            for counts in [self._parts.ingest.counts[name]]
        }
