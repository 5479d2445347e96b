"""Readings in Prometheus's text format, or in OpenMetrics if the scraper asks for it.

Nothing is counted here. A scrape reads what the relay counts anyway, so metrics cost a delivery nothing.

Names follow https://prometheus.io/docs/practices/naming: base units, `_total` for counters, one meaning per metric.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from relay.core.counters import BUCKET_BOUNDS_S, DurationHistogram
from relay.core.errors import Reason
from relay.core.events import LOG_ACTIONS, Action
from relay.metrics.readings import EngineReading, Readings

_BY_OUTCOME = (
    ("relay_tokens", "Requests for scoped tokens.", (Action.TOKEN_ISSUED, Action.TOKEN_DENIED)),
    (
        "relay_connects",
        "Connections that were accepted or refused.",
        (Action.CONNECT_ACCEPTED, Action.CONNECT_DENIED),
    ),
    (
        "relay_subscribes",
        "Subscriptions requested by an open connection, and those refused when it opened.",
        (Action.SUBSCRIBE_ACCEPTED, Action.SUBSCRIBE_DENIED),
    ),
    ("relay_logins", "Log-ins.", (Action.LOGIN_SUCCEEDED, Action.LOGIN_FAILED)),
    ("relay_connections_closed", "Connections that ended.", (Action.CONNECTION_CLOSED,)),
)
_PARTS = {
    Reason.STATE_UNAVAILABLE.value: "state",
    Reason.BROKER_UNAVAILABLE.value: "broker",
    Reason.NODE_BLIND.value: "state",
    Reason.BACKEND_UNAVAILABLE.value: "backend",
    Reason.BACKEND_FAULT.value: "backend",
    Reason.AUDIT_UNAVAILABLE.value: "audit",
    Reason.KEYS_UNAVAILABLE.value: "keys",
}
_SESSIONS = tuple(reason.value for reason in Reason if reason.value.startswith("session_"))


class Exposition:
    """Writes what `read` returns. Its registry is its own: two relays in one process (tests) share no numbers."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Relay(read))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def write(self, accept: str, workers: "Workers | None" = None) -> tuple[bytes, str]:
        """Return all metrics and their media type, in the format that an Accept header asks for.

        With `workers`, the metrics are theirs.
        """
        encode, media_type = choose_encoder(accept)
        return encode(workers or self._registry), media_type

    def samples(self) -> list[Any]:
        """Return all metrics in a form that JSON has, for `Workers`."""
        return [
            [
                family.name,
                family.documentation,
                family.type,
                [[one.name, one.labels, one.value] for one in family.samples],
            ]
            for family in self._registry.collect()
        ]


class Workers(Collector):
    """The metrics of several workers, each sample with the label `worker`.

    They are not summed up here: when a worker is started again its counts begin at 0, and of a sum that becomes smaller
    Prometheus would take all of it as new. `sum without (worker) (rate(…))` is right over such a start.
    """

    def __init__(self, samples: Mapping[int, Sequence[Any]], silent: Sequence[int]) -> None:
        """Take the `samples` of each worker by its number, and the numbers of those that did not answer."""
        self._samples = samples
        self._silent = silent

    def collect(self) -> Iterable[Metric]:
        """Yield each family once, with the samples of all workers."""
        families: dict[str, Metric] = {}
        for number, found in self._samples.items():
            for name, text, kind, samples in found:
                family = families.setdefault(name, Metric(name, text, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, labels | {"worker": str(number)}, value)
        yield from families.values()
        answered = GaugeMetricFamily(
            "relay_worker_answered",
            "1 for each worker whose metrics are here, 0 for one that did not answer within a second.",
            labels=["worker"],
        )
        for number in (*self._samples, *self._silent):
            answered.add_metric([str(number)], number in self._samples)
        yield answered


class _Relay(Collector):
    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Yield the relay's metrics, without those of the process."""
        now = self._read()
        yield from _about(now)
        yield from _from_events(now)
        yield from _fan_out(now)
        yield from _endpoints(now)
        yield from _publishers(now)
        yield from _proxy(now)
        yield from _engine(now.engine)
        yield CounterMetricFamily(
            "relay_limits_counted_alone",
            "Requests whose limit this node counted alone, because the engine did not answer in time.",
            now.limits_alone,
        )
        yield CounterMetricFamily(
            "relay_requests_shed",
            "Requests that were answered with 503 and Retry-After because they would have waited for five seconds.",
            now.shed,
        )
        yield GaugeMetricFamily(
            "relay_audit_waiting_events", "Audit events that are not written yet.", now.audit_waiting
        )
        yield _summed(
            "relay_audit_lost_events",
            "Audit events that could not be recorded.",
            "action",
            dict.fromkeys((action for action in Action if action not in LOG_ACTIONS), 0),
            now.audit_lost.items(),
        )
        yield GaugeMetricFamily(
            "relay_state_waiting_writes",
            "Token claims and revocations that are not stored yet.",
            now.state_waiting,
        )


def _about(now: Readings) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "relay_info", "Always 1; the labels have the version and the role.", labels=["version", "role"]
    )
    info.add_metric([now.version, now.role], 1)
    yield info
    yield GaugeMetricFamily(
        "relay_ready",
        "1 while the relay accepts new work; 0 during a drain, and while /ready says so because of the engine.",
        not now.stopping and (now.engine is None or now.engine.is_ready),
    )


def _from_events(now: Readings) -> Iterator[Metric]:
    """Yield the counts of audit events. An event that has not happened yet is 0, if its labels are known."""
    for name, text, actions in _BY_OUTCOME:
        family = CounterMetricFamily(name, text, labels=["outcome", "reason", "endpoint"])
        for key, count in now.events.items():
            if key.action in actions:
                family.add_metric([key.outcome, key.reason, key.endpoint], count)
        yield family
    yield _summed(
        "relay_events",
        "Events for the audit log, before floods are aggregated.",
        "action",
        dict.fromkeys((action for action in Action if action not in LOG_ACTIONS), 0),
        ((key.action, count) for key, count in now.events.items()),
    )
    yield _summed(
        "relay_sessions_refused",
        "Requests for a token whose session was not accepted.",
        "reason",
        dict.fromkeys(_SESSIONS, 0),
        ((key.reason, count) for key, count in now.events.items() if key.action == Action.TOKEN_DENIED),
    )
    yield _summed(
        "relay_unavailable",
        "Requests that failed because a part of the relay did not answer.",
        "part",
        dict.fromkeys(_PARTS.values(), 0),
        ((_PARTS.get(key.reason, ""), count) for key, count in now.events.items()),
    )


def _summed(
    name: str, text: str, label: str, sums: dict[str, int], counts: Iterable[tuple[str, int]]
) -> CounterMetricFamily:
    """Return a counter with one label: add `counts` to `sums`. Other labels are left out."""
    for value, count in counts:
        if value in sums:
            sums[value] += count
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sums.items():
        family.add_metric([value], count)
    return family


def _fan_out(now: Readings) -> Iterator[Metric]:
    hub, compression = now.hub, now.compression
    for name, text, count in (
        ("relay_fanout_publications", "Publications that the hub accepted.", hub.publications),
        ("relay_fanout_duplicates", "Publications that the hub had already.", hub.duplicates),
        (
            "relay_deliveries",
            "Messages sent to subscribers: publications times subscribers.",
            hub.deliveries,
        ),
        ("relay_delivered_bytes", "Bytes sent to subscribers.", hub.bytes),
        ("relay_writes", "Writes to sockets; one write can have many deliveries.", hub.writes),
        (
            "relay_conflations",
            "Prices that a slow reader did not get because a newer one replaced them.",
            hub.conflated,
        ),
        (
            "relay_overflows",
            "Connections ended because they were too slow for a stream channel.",
            hub.overflows,
        ),
        (
            "relay_compressed_batches",
            "Messages that were compressed, each once for all its readers.",
            compression.batches,
        ),
        (
            "relay_uncompressed_batches",
            "Messages that went uncompressed, because the CPU for it was used up: limits.compression_cpu.",
            compression.plain,
        ),
        (
            "relay_compression_saved_bytes",
            "Bytes that compression saved, counted for each reader.",
            compression.saved_bytes,
        ),
        ("relay_compression_cpu_seconds", "CPU time of the compression.", compression.cpu_s),
    ):
        yield CounterMetricFamily(name, text, count)
    yield _histogram(
        "relay_flush_seconds",
        "Time from the possible arrival of the oldest value of a flush to the flush's last write.",
        now.flushes,
    )
    yield _histogram(
        "relay_write_turn_seconds", "Time for which one turn of writing occupied the event loop.", now.turns
    )
    yield _histogram(
        "relay_event_loop_lag_seconds", "Time by which the event loop was late for a timer.", now.loop_lag
    )


def _endpoints(now: Readings) -> Iterator[Metric]:
    connections = GaugeMetricFamily("relay_connections", "Open connections.", labels=["endpoint"])
    channels = GaugeMetricFamily(
        "relay_channels", "Channels that have a value.", labels=["endpoint", "state"]
    )
    newest = GaugeMetricFamily(
        "relay_newest_value_age_seconds",
        "Age of the endpoint's newest value, since ingest.",
        labels=["endpoint"],
    )
    oldest = GaugeMetricFamily(
        "relay_oldest_value_age_seconds",
        "Age of the last value of the endpoint's most silent channel, since ingest.",
        labels=["endpoint"],
    )
    for name, endpoint in now.endpoints.items():
        connections.add_metric([name], endpoint.connections)
        channels.add_metric([name, "live"], endpoint.channels - endpoint.stale)
        channels.add_metric([name, "stale"], endpoint.stale)
        for family, age in ((newest, endpoint.newest_s), (oldest, endpoint.oldest_s)):
            if age is not None:
                family.add_metric([name], age)
    yield from (connections, channels, newest, oldest)
    yield GaugeMetricFamily(
        "relay_waiting_connections", "Unauthenticated connections: their token has not come yet.", now.waiting
    )


def _publishers(now: Readings) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "relay_publications",
        "Messages of publishers, by outcome: published, alive, refused, stale or duplicate.",
        labels=["publisher", "outcome"],
    )
    size = CounterMetricFamily("relay_published_bytes", "Bytes of published data.", labels=["publisher"])
    sockets = GaugeMetricFamily(
        "relay_publisher_connections", "Open sockets at /v1/ingest.", labels=["publisher"]
    )
    silent = GaugeMetricFamily(
        "relay_publisher_silence_seconds", "Time since the last message of a publisher.", labels=["publisher"]
    )
    for name, one in now.publishers.items():
        for outcome in ("published", "alive", "refused", "stale", "duplicate"):
            outcomes.add_metric([name, outcome], getattr(one, outcome))
        size.add_metric([name], one.bytes)
        sockets.add_metric([name], one.connections)
        if one.silent_s is not None:
            silent.add_metric([name], one.silent_s)
    yield from (outcomes, size, sockets, silent)


def _proxy(now: Readings) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "relay_proxy_answers",
        "Answers of the API proxy, by the prefix of the route; 499: the client went away.",
        labels=["prefix", "status"],
    )
    for (prefix, status), count in now.proxy.answers.items():
        answers.add_metric([prefix, str(status) if status else "other"], count)
    yield answers
    yield GaugeMetricFamily("relay_proxy_calls", "Calls through the API proxy that run now.", now.proxy.calls)
    yield GaugeMetricFamily(
        "relay_proxy_connections",
        "Open connections to the backend, used or kept.",
        now.proxy.connections,
    )


def _engine(now: EngineReading | None) -> Iterator[Metric]:
    """Yield the engine's metrics. Without an engine they have no samples."""
    silence = GaugeMetricFamily(
        "relay_engine_silence_seconds",
        "Time since the engine last answered the reader of a log. It is asked twice a second.",
        labels=["log"],
    )
    generation = GaugeMetricFamily(
        "relay_engine_generation",
        "Generation of a log. It changes when the engine lost data or was replaced.",
        labels=["log"],
    )
    resyncs = CounterMetricFamily(
        "relay_engine_resyncs", "How often this node had missed something and read all again.", labels=["log"]
    )
    behind = GaugeMetricFamily(
        "relay_engine_entries_behind",
        "Entries of a log that this node had not read when it last looked. If it grows, this node is too slow.",
        labels=["log"],
    )
    restarts = CounterMetricFamily(
        "relay_engine_task_restarts",
        "Tasks that failed because of a fault in the relay and were started again.",
        labels=[],
    )
    offset = GaugeMetricFamily(
        "relay_engine_clock_offset_seconds",
        "How far the engine's clock is ahead of this machine's.",
        labels=[],
    )
    gate = GaugeMetricFamily(
        "relay_gate_closed", "1 while the gate admits no connection because of the engine.", labels=["reason"]
    )
    evicts = GaugeMetricFamily(
        "relay_engine_may_evict",
        "1 while the engine's maxmemory-policy is not noeviction: it may forget used tokens.",
        labels=[],
    )
    nodes = GaugeMetricFamily(
        "relay_engine_nodes",
        "Nodes of this engine by state: live, draining, stopped, vanished, unknown. A row stays for an hour.",
        labels=["state"],
    )
    log_format = GaugeMetricFamily(
        "relay_engine_log_format",
        "Format of the logs that this node writes: the newest that all nodes read.",
        labels=[],
    )
    cut = GaugeMetricFamily(
        "relay_audit_cut",
        "1 if the engine knew records of this node's audit log that were not in the file when the node started.",
        labels=[],
    )
    if now is not None:
        for state, count in now.nodes.items():
            nodes.add_metric([state], count)
        log_format.add_metric([], now.log_format)
        cut.add_metric([], now.audit_is_cut)
        for name, one in now.logs.items():
            silence.add_metric([name], one.silent_s)
            generation.add_metric([name], one.generation)
            resyncs.add_metric([name], one.resyncs)
            behind.add_metric([name], one.behind)
        restarts.add_metric([], now.restarts)
        offset.add_metric([], now.offset_s)
        evicts.add_metric([], now.may_evict)
        gate.add_metric([Reason.NODE_BLIND.value], now.gate_closed)
    yield from (silence, generation, resyncs, behind, restarts, offset, gate, evicts, nodes, log_format, cut)


def _histogram(name: str, text: str, times: DurationHistogram) -> HistogramMetricFamily:
    bounds = [*(str(bound) for bound in BUCKET_BOUNDS_S), "+Inf"]
    buckets = list(zip(bounds, accumulate(times.counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=times.total_s)
