"""Checks of the Redis or Valkey server that several nodes share (`engine.url`), by what it says of itself."""

from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity
from relay.doctor.engine_memory import memory_need

WARN_OFFSET_S = 0.1
"""A tenth of the difference at which claims are refused."""


def _cluster(deployment: Deployment) -> Iterator[str]:
    if "+cluster://" in deployment.settings.engine.url.get_secret_value():
        yield "engine.url names a Redis Cluster"


def _unusable(deployment: Deployment) -> Iterator[str]:
    if deployment.engine is not None and deployment.engine.fault:
        yield deployment.engine.fault.rstrip(".")


def _clock(deployment: Deployment) -> Iterator[str]:
    engine = deployment.engine
    if engine is not None and not engine.fault and abs(engine.ahead_s) > WARN_OFFSET_S:
        way = "ahead of" if engine.ahead_s > 0 else "behind"
        yield f"this machine's clock is {abs(engine.ahead_s) * 1000:.0f} ms {way} the engine's"


def _memory(deployment: Deployment) -> Iterator[str]:
    engine = deployment.engine
    if engine is None or not engine.memory:
        return
    parts = memory_need(deployment.settings, nodes=max(1, engine.nodes))
    if engine.memory < (need := sum(parts.values())):
        listed = ", ".join(f"{name} {size >> 20}" for name, size in parts.items() if size >> 20)
        yield (
            f"the engine may use {engine.memory >> 20} MiB, and these settings can need {need >> 20} MiB "
            f"({listed})"
        )


def _replicas(deployment: Deployment) -> Iterator[str]:
    engine = deployment.engine
    if engine is None or engine.fault or engine.needs_replicas:
        return
    if engine.replicas:
        yield f"the engine has replicas ({engine.replicas}), and accepts writes without them"
    elif engine.has_sentinels:
        yield "the engine has Sentinels, and accepts writes without a replica"


def _persistence(deployment: Deployment) -> Iterator[str]:
    engine = deployment.engine
    if engine is not None and not engine.fault and not engine.is_persistent and not engine.replicas:
        yield "the engine has neither a file nor a replica"


CHECKS = (
    Check(
        name="engine-unusable",
        severity=Severity.ERROR,
        finds="The engine does not answer, refuses the log-in, is too old, is a replica, or may evict keys.",
        means="The relay does not start. What it says then is the finding.",
        do="Do what the finding says.",
        run=_unusable,
    ),
    Check(
        name="engine-clock",
        severity=Severity.WARNING,
        finds="The clocks of this machine and of the engine differ by more than 100 ms.",
        means="From a second on, this node admits no connection, because claims would be kept for the wrong time.",
        do="Run an NTP client on both machines (chronyc tracking, timedatectl).",
        run=_clock,
    ),
    Check(
        name="engine-memory",
        severity=Severity.WARNING,
        finds="The engine's maxmemory, or without one all memory of its machine, is below what the settings can need.",
        means="At maxmemory claims and publications get 503, and nothing is evicted. Without one the system kills it.",
        do="Raise it, or lower the parts that the finding names: engine.log_bytes, limits.channels, or the endpoints' "
        "history.messages.",
        run=_memory,
    ),
    Check(
        name="engine-replicas",
        severity=Severity.WARNING,
        finds="The engine has replicas or Sentinels, but no min-replicas-to-write.",
        means="If the network splits, two masters accept writes, and a token can be used once on each.",
        do="Set min-replicas-to-write 1 and min-replicas-max-lag 1 on all its servers: the old master then refuses "
        "writes within 3 s, and Sentinels that wait for longer (down-after-milliseconds) leave no window.",
        run=_replicas,
    ),
    Check(
        name="engine-cluster",
        severity=Severity.NOTE,
        finds="The engine is a Redis Cluster, which is experimental.",
        means="Some faults were tried on a single server only: a network that splits, lost replies, wrong clocks.",
        do="Use one server with replicas and Sentinels (redis+sentinel://) if it is large enough.",
        run=_cluster,
    ),
    Check(
        name="engine-persistence",
        severity=Severity.NOTE,
        finds="The engine has neither a file of its data (AOF or RDB) nor a replica.",
        means="After its restart, last values are gone until they are published again, and tokens of 2 s are refused.",
        do="Set appendonly yes there if publishers do not repeat their values.",
        run=_persistence,
    ),
)
