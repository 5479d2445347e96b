"""What a node says of itself, in the table of nodes in the engine and to operators, and the answer about all of them.

The figures are of the last seconds. They are made of counts that the parts keep anyway.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from relay.core.counters import high_bound_s
from relay.engine.health import Health
from relay.server.parts import Parts

if TYPE_CHECKING:
    from relay.engine.nodes import Node

SHORTEST_S = 1.0
"""Seconds of the shortest time that rates are measured over. Who asks again earlier gets the same figures."""


class NodeFigures:
    """The figures of this node."""

    def __init__(self, parts: Parts, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._unready = unready(parts)
        self._steady = steady
        self._at = steady()
        self._counts = self._count()
        self._lags = list(parts.loop_lag.counts)
        self._rates: Mapping[str, float | None] = dict.fromkeys(
            ("deliveries_s", "publications_s", "loop_lag_s", "delay_s")
        )

    def read(self) -> dict[str, Any]:
        """Return the figures."""
        parts = self._parts
        self._measure()
        return {
            **parts.identity,
            "stopping": parts.stopping,
            "connections": len(parts.stream.registry.connections),
            **self._rates,
            "ready": {role: why() for role, why in self._unready.items()},
            "engine": None if parts.engine is None else parts.engine.figures(),
        }

    def _count(self) -> tuple[int, int]:
        published = sum(one.published for one in self._parts.ingest.counts.values())
        return self._parts.fanout.hub.counters.deliveries, published

    def _measure(self) -> None:
        passed = self._steady() - self._at
        if passed < SHORTEST_S:
            return
        counts, lags = self._count(), list(self._parts.loop_lag.counts)
        deliveries, published = (
            (now - before) / passed for now, before in zip(counts, self._counts, strict=True)
        )
        delay_s = None if self._parts.engine is None else self._parts.engine.broker.take_delay_s()
        in_between = [now - before for now, before in zip(lags, self._lags, strict=True)]
        self._rates = {
            "deliveries_s": round(deliveries, 1),
            "publications_s": round(published, 1),
            "loop_lag_s": high_bound_s(in_between, share=0.99),
            "delay_s": None if delay_s is None else round(delay_s, 4),
        }
        self._at, self._counts, self._lags = self._at + passed, counts, lags


def unready(parts: Parts) -> dict[str, Callable[[], str | None]]:
    """Return, for each role that this process has, what tells why new work should go to another node."""
    roles: dict[str, Callable[[Health], str | None]] = {}
    if parts.role.streams:
        roles["stream"] = lambda health: health.stream_unready
    if parts.role.issues:
        roles["issuer"] = lambda health: health.issuer_unready
    if parts.role.ingests:
        roles["ingest"] = lambda health: health.ingest_unready

    def why(read: Callable[[Health], str | None]) -> str | None:
        if parts.stopping:
            return "The relay is stopping."
        return None if parts.engine is None else read(parts.engine.health)

    return {role: partial(why, read) for role, read in roles.items()}


def warning(parts: Parts) -> str | None:
    """Return what somebody has to change at the engine although everything works, or None."""
    return None if parts.engine is None else parts.engine.health.warning


def all_nodes(parts: Parts, figures: NodeFigures) -> dict[str, Any]:
    """Return the answer of /v1/nodes: this node as it is now, and the others as the engine last told."""
    now, own = time.time(), parts.audit_log.head.writer
    mine = {"id": own, "state": "draining" if parts.stopping else "live", "seen_at": now, "seen_s": 0.0}
    mine |= figures.read()
    if parts.engine is None:
        return {"at": now, "nodes": [mine]}
    rows = [
        mine | _formats(node)
        if node.id == own
        else {
            "id": node.id,
            "state": state.value,
            "seen_at": now - seen_s,
            "seen_s": round(seen_s, 1),
            **node.figures,
            **_formats(node),
        }
        for node, state, seen_s in parts.engine.nodes.known()
    ]
    return {"at": now, "nodes": rows}


def _formats(node: "Node") -> dict[str, Any]:
    return {"reads": [node.formats.oldest, node.formats.newest], "writes": node.writes}
