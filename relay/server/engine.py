"""The engine of several nodes, if the settings name one. redis-py is imported only then."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.channels import ChannelOptions
from relay.core.errors import ConfigurationError, UnavailableError
from relay.engine.address import read_address
from relay.engine.options import EngineOptions
from relay.settings.load import Settings

if TYPE_CHECKING:
    from relay.engine.broker import EngineBroker
    from relay.engine.families import EngineFamilies
    from relay.engine.limits import EngineLimits
    from relay.engine.state import EngineState

READY_AFTER_S = 5.0
"""Seconds without an answer of the engine after which new work should go to another node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The adapters of the ports."""

    state: "EngineState"
    families: "EngineFamilies"
    limits: "EngineLimits"
    broker: "EngineBroker"

    @property
    def unready(self) -> str | None:
        """Why new work should go to another node, or None."""
        silent_s = max(self.state.silent_s, self.broker.silent_s)
        return "The engine does not answer." if silent_s > READY_AFTER_S else None


def engine_options(settings: Settings) -> EngineOptions | None:
    """Return where the engine is, or None if a relay is to run alone.

    Raises:
        ConfigurationError: if the address can't be read.
    """
    engine = settings.engine
    if not engine.url.get_secret_value():
        return None
    address = read_address(engine.url.get_secret_value(), password_file=engine.password_file)
    return EngineOptions(address=address, prefix=engine.prefix)


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
    from relay.engine.probe import probe
    from relay.engine.state import EngineState

    def history_of(channel: str) -> KeptHistory:
        found = channel_options(channel)
        return KeptHistory(messages=found.history_messages, seconds=found.history_ms / 1000)

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
        broker = EngineBroker(options, max_channels=settings.limits.channels, history_of=history_of)
        stack.push_async_callback(broker.aclose)
        yield Engine(state=state, families=families, limits=limits, broker=broker)
