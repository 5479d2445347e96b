"""The numbers of a running relay at one moment. Their count is bounded by the settings.

No number is labelled by channel, user, session, token or address, because a monitoring system can't keep a time series
for each of them. The ops page shows single channels and connections.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from relay.core.counters import CompressionCounters, Counters, DurationHistogram
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
    """One publisher of the settings: its messages by outcome. `connections` is the number of open sockets."""

    published: int
    bytes: int
    alive: int
    refused: int
    stale: int
    duplicate: int
    connections: int
    silent_s: float | None
    """Seconds since its last message; None: there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyReading:
    """The API proxy: answers by prefix and status, the calls that run now, and open connections to the backend."""

    answers: Mapping[tuple[str, int], int]
    calls: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLogReading:
    """One log of the engine as this node reads it. `silent_s` is the time since the engine's last answer.

    `behind` is the number of entries that were not read yet.
    """

    silent_s: float
    generation: int
    resyncs: int
    behind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """The engine as this node sees it. `logs` are those of revocations ("control") and "publications".

    `gate_closed` and `is_ready` are what the node concludes. `offset_s` is how far the engine's clock is ahead.
    """

    logs: Mapping[str, EngineLogReading]
    restarts: int
    offset_s: float
    gate_closed: bool
    is_ready: bool
    may_evict: bool
    """Whether a server of the engine may evict keys."""
    nodes: Mapping[str, int]
    """How many nodes are in each state, as the engine last told."""
    log_format: int
    audit_is_cut: bool
    """Whether the engine knew records of this node's audit log that were not in the file at the start."""


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
    compression: CompressionCounters
    turns: DurationHistogram
    flushes: DurationHistogram
    loop_lag: DurationHistogram
    endpoints: Mapping[str, EndpointReading]
    publishers: Mapping[str, PublisherReading]
    waiting: int
    """Unauthenticated connections: their token has not come yet."""
    shed: int
    """Requests that were refused because they would have waited too long."""
    audit_waiting: int
    audit_lost: Mapping[str, int]
    """By action."""
    state_waiting: int
    limits_alone: int
    """Requests that this node counted alone, because the engine did not answer in time."""
    proxy: ProxyReading
    engine: EngineReading | None
    """None without an engine."""
