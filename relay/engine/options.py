"""What every part of the engine needs to know: where the engine is, and how its keys begin."""

from collections.abc import Sequence
from dataclasses import dataclass

from relay.engine.address import Address
from relay.engine.formats import THIS_RELEASE, Formats
from relay.engine.shards import SHARDS, place, shard_names

CONTROL = "c"
"""The shard of what every node needs to know, such as revocations. There is one, in a cluster too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """`prefix` begins every key, so that staging and production may share a server."""

    address: Address
    prefix: str = "r1"
    log_bytes: int = 64 << 20
    formats: Formats = THIS_RELEASE

    def key(self, shard: str, name: str) -> str:
        """Return the name of a key. All keys of a shard are in one slot of a cluster."""
        return f"{self.prefix}:{{{shard}}}:{name}"

    def shards(self, kind: str) -> Sequence[str]:
        """Return the names of the shards of a kind: one, and several in a cluster."""
        return shard_names(kind, SHARDS if self.address.kind == "cluster" else 1)

    @property
    def on_each_server(self) -> Sequence[str]:
        """Return the names of shards that are on all servers which have any."""
        return (CONTROL, *self.shards("t"))

    def shard(self, kind: str, text: str) -> str:
        """Return the name of the shard of a kind that has a channel or a session."""
        names = self.shards(kind)
        return names[place(text, len(names))]
