"""What is read of a running relay at one moment: plain numbers, bounded in number by the settings.

Nothing is labelled by channel, user, session, token or address: a time series for each of them would be the monitoring
system's end. What is about single channels and connections is on the ops page.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from relay.core.counters import Counters, DurationHistogram
from relay.metrics.tally import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointReading:
    """One endpoint: its connections, its channels that have a value, and how old the newest and the oldest value is.

    Ages are in seconds since ingest, None while no channel has a value.
    """

    connections: int
    channels: int
    stale: int
    newest_s: float | None
    oldest_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherReading:
    """One publisher of the settings: what it published, and what became of the rest. `connections` are open sockets."""

    published: int
    bytes: int
    alive: int
    refused: int
    stale: int
    duplicate: int
    connections: int
    silent_s: float | None
    """Seconds since it was last heard of; None for never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One look at a relay. `at` and `started_at` are Unix seconds; all counts are since the start."""

    version: str
    role: str
    node: str
    at: float
    started_at: float
    stopping: bool
    events: Mapping[Key, int]
    hub: Counters
    turns: DurationHistogram
    flushes: DurationHistogram
    loop_lag: DurationHistogram
    endpoints: Mapping[str, EndpointReading]
    publishers: Mapping[str, PublisherReading]
    waiting: int
    """Connections that have shown no token yet."""
    audit_waiting: int
    audit_lost: Mapping[str, int]
    """By action."""
    state_waiting: int
