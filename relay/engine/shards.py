"""Shards: parts of the data that are independent of each other, each in one slot of a cluster.

A shard's name stands in braces in its keys, so that all of them are in one slot. On one server there is one shard of a
kind, `t.0`. In a cluster there are 16, whose names are chosen so that their slots are spread evenly: three masters
with a third of the slots each have 5, 6 and 5. Names without a choice would be spread like dice.
"""

import itertools
from binascii import crc32, crc_hqx
from collections.abc import Sequence
from functools import cache

from relay.engine.texts import to_bytes

SLOTS = 16384
"""Slots of a cluster. The masters share them out."""
SHARDS = 16
"""Shards of a kind in a cluster. Another number would be other places for the same channel, so this is no setting."""
_NEAR = 32
"""How far the slot of a shard may be from the middle of its part: 128 names are tried for each on average."""


def slot_of(shard: str) -> int:
    """Return the slot of a shard's keys: CRC-16/XMODEM of what stands in the braces, as the cluster counts it."""
    return crc_hqx(shard.encode(), 0) % SLOTS


@cache
def shard_names(kind: str, count: int) -> Sequence[str]:
    """Return the names of the shards of a kind, in the order of their slots."""
    if count == 1:
        return (f"{kind}.0",)
    return tuple(_name(kind, index, (2 * index + 1) * SLOTS // (2 * count)) for index in range(count))


def _name(kind: str, index: int, slot: int) -> str:
    names = (f"{kind}.{index}-{number}" for number in itertools.count())
    return next(name for name in names if abs(slot_of(name) - slot) <= _NEAR)


def place(text: str, count: int) -> int:
    """Return the number of the shard that a channel or a session has. It must be the same on every node."""
    return crc32(to_bytes(text)) % count
