"""What every part of the engine needs to know: where the engine is, and how its keys begin."""

from dataclasses import dataclass

from relay.engine.address import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """`prefix` begins every key, so that staging and production may share a server."""

    address: Address
    prefix: str = "r1"
    log_bytes: int = 64 << 20

    def key(self, shard: str, name: str) -> str:
        """Return the name of a key. All keys of a shard are in one slot of a cluster."""
        return f"{self.prefix}:{{{shard}}}:{name}"
