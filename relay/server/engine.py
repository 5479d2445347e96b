"""The engine of several nodes, if the settings name one. redis-py is imported only then."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from relay.core.channels import ChannelOptions
from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.core.hub import Hub
from relay.engine.address import read_address
from relay.engine.health import WARN_OFFSET_S, Health
from relay.engine.options import EngineOptions
from relay.engine.shards import place
from relay.metrics.readings import EngineLogReading, EngineReading
from relay.server.options import digest_of_ref_key
from relay.settings.load import Settings
from relay.stream.service import Stream

if TYPE_CHECKING:
    from relay.engine.broker import EngineBroker
    from relay.engine.families import EngineFamilies
    from relay.engine.limits import EngineLimits
    from relay.engine.nodes import EngineNodes
    from relay.engine.quotas import EngineQuotas
    from relay.engine.state import EngineState

LOOK_EVERY_S = 0.25
"""Time between two looks at the engine's health: prices are called stale a quarter of a second late at most."""

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The adapters of the ports, and what this node concludes from the engine's answers."""

    state: "EngineState"
    families: "EngineFamilies"
    limits: "EngineLimits"
    quotas: "EngineQuotas"
    broker: "EngineBroker"
    nodes: "EngineNodes"
    health: Health

    def read(self) -> EngineReading:
        """Return the numbers, for metrics and operators."""
        logs = {
            name: EngineLogReading(
                silent_s=part.silent_s,
                generation=part.generation,
                resyncs=part.resyncs,
                behind=part.behind,
            )
            for name, part in (("control", self.state), ("publications", self.broker))
        }
        health = self.health
        return EngineReading(
            logs=logs,
            restarts=sum(
                part.restarts
                for part in (self.state, self.families, self.limits, self.quotas, self.broker, self.nodes)
            ),
            nodes=self.nodes.counts(),
            log_format=self.broker.log_format,
            audit_is_cut=bool(self.nodes.cut),
            offset_s=health.offset.seconds,
            gate_closed=health.gate_closed is not None,
            may_evict=health.warning is not None,
            is_ready=(health.stream_unready or health.ingest_unready or health.issuer_unready) is None,
        )

    def figures(self) -> dict[str, Any]:
        """Return what this node tells the others about the engine, as it sees it."""
        return {
            "generation": self.broker.generation,
            "resyncs": self.broker.resyncs + self.state.resyncs,
            "offset_s": round(self.health.offset.seconds, 3),
            "silent_s": round(max(self.state.silent_s, self.broker.silent_s), 1),
            "gate_closed": self.health.gate_closed,
            "warning": self.health.warning,
        }


def engine_options(settings: Settings) -> EngineOptions | None:
    """Return where the engine is, or None if a relay is to run alone.

    Raises:
        ConfigurationError: if the address can't be read.
    """
    engine = settings.engine
    if not engine.url.get_secret_value():
        return None
    address = read_address(engine.url.get_secret_value(), password_file=engine.password_file)
    return EngineOptions(address=address, prefix=engine.prefix, log_bytes=engine.log_bytes)


@contextlib.asynccontextmanager
async def open_engine(
    settings: Settings,
    *,
    known: Mapping[str, tuple[float, float]],
    channel_options: Callable[[str], ChannelOptions],
) -> AsyncIterator[Engine | None]:
    """Check the engine and connect to it. `known` are live revocations of this node, which the engine gets.

    Raises:
        ConfigurationError: if the engine can't be used.
    """
    options = engine_options(settings)
    if options is None:
        yield None
        return
    from relay.engine.broker import EngineBroker, KeptHistory
    from relay.engine.families import EngineFamilies
    from relay.engine.limits import EngineLimits
    from relay.engine.nodes import EngineNodes
    from relay.engine.probe import probe
    from relay.engine.quotas import EngineQuotas
    from relay.engine.state import EngineState

    def history_of(channel: str) -> KeptHistory:
        found = channel_options(channel)
        return KeptHistory(messages=found.history_messages, seconds=found.history_ms / 1000)

    def use_format(number: int) -> None:
        state.log_format = broker.log_format = number

    if options.address.kind == "cluster":
        log.warning(
            "a Redis Cluster is experimental as an engine: relay/engine/README.md names the faults that were not tried",
            engine=str(options.address),
            setting="engine.url",
        )
    await probe(options)
    async with contextlib.AsyncExitStack() as stack:
        try:
            state = await EngineState.open(options, known=known)
            stack.push_async_callback(state.aclose)
            families = await EngineFamilies.open(options)
            stack.push_async_callback(families.aclose)
        except UnavailableError as error:
            raise ConfigurationError(f"engine.url: {error}") from None
        limits = EngineLimits(options)
        stack.push_async_callback(limits.aclose)
        quotas = EngineQuotas(options)
        stack.push_async_callback(quotas.aclose)
        nodes = EngineNodes(options=options, on_format=use_format, refs=digest_of_ref_key(settings))
        stack.push_async_callback(nodes.aclose)
        broker = EngineBroker(options, max_channels=settings.limits.channels, history_of=history_of)
        stack.push_async_callback(broker.aclose)
        health = Health(
            control=state.pulse,
            writes=state.claims.writes,
            logs=[shard.pulse for shard in broker.shards],
            offset=state.offset,
            blind_s=settings.engine.blind_s,
            ready_after_s=settings.engine.ready_after_s,
            evictions=state.claims.evictions,
        )
        yield Engine(
            state=state,
            families=families,
            limits=limits,
            quotas=quotas,
            broker=broker,
            nodes=nodes,
            health=health,
        )


class EngineWatch:
    """Does what a silent engine asks for: stale prices, and the end of connections of a node that is blind."""

    def __init__(self, health: Health, hub: Hub, stream: Stream) -> None:
        self._health = health
        self._hub = hub
        self._stream = stream
        self._warned = False
        self._warning: str | None = None

    async def run(self) -> None:
        """Look several times a second, until cancelled."""
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        health = self._health
        if silent := health.silent_shards:
            self._hub.mark_all_stale(lambda name: place(name, len(health.logs)) in silent)
        if health.must_end_connections and self._stream.registry.connections:
            closed = await self._stream.end_all(Reason.NODE_BLIND, wanted=lambda: health.must_end_connections)
            log.error(
                "connections were closed: the engine did not answer, so this node may not know of a revocation",
                connections=closed,
                silent_s=round(health.control.silent_s, 1),
                setting="engine.blind_s",
            )
        if health.warning != self._warning:
            self._warning = health.warning
            if self._warning is None:
                log.info("the engine evicts no keys again")
            else:
                log.error("the engine may evict keys", why=self._warning, setting="engine.url")
        offset_s = health.offset.seconds
        if abs(offset_s) > WARN_OFFSET_S and not self._warned:
            log.warning(
                "the clock of this machine differs from the engine's", offset_ms=round(-offset_s * 1000)
            )
        # half of it: an offset at the limit must not fill the log
        self._warned = abs(offset_s) > (WARN_OFFSET_S / 2 if self._warned else WARN_OFFSET_S)
