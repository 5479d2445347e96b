"""The lines of several chains as one sequence, ordered by time.

Records of one chain keep their order, whatever their times say: a clock that was set back moves no record before an
earlier one. Of records with the same time, those of the first chain come first. So the order is that of a stable sort
by (the latest time so far in the chain, the chain's place), which an index can compute too.

In memory is one line of each chain.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_BEGIN: Final = b'{"@timestamp":"'
_TIME: Final = slice(len(_BEGIN), len(_BEGIN) + len("2026-01-01T00:00:00.000Z"))


def merged(chains: Sequence[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield the lines of all chains in the order of their times. A line without a time stays after the one before."""
    if len(chains) == 1:
        return iter(chains[0])
    keyed = [_keyed(lines, number) for number, lines in enumerate(chains)]
    return (line for _, _, line in heapq.merge(*keyed))


def time_of(line: bytes) -> bytes:
    """Return the time of a record in its canonical form, or nothing if the line has none."""
    return line[_TIME] if line.startswith(_BEGIN) else b""


def _keyed(lines: Iterable[bytes], number: int) -> Iterator[tuple[bytes, int, bytes]]:
    # `heapq.merge` holds one item of each iterator, so two items with the same number are never compared
    latest = b""
    for line in lines:
        latest = max(latest, time_of(line))
        yield latest, number, line
