"""Random bits for the ids that are made thousands of times a second: tokens, records of the audit log."""

from collections.abc import Iterator
from secrets import token_bytes
from typing import Final

ID_BYTES: Final = 16
"""Bytes of an id: 128 bits, which nobody guesses and which are never the same twice (RFC 4122 §4.4 has 122)."""
_BLOCK_IDS: Final = 256


def random_ids() -> Iterator[bytes]:
    """Yield `ID_BYTES` random bytes, without end. For one thread.

    Random bits are read in blocks. Each read is a system call that releases the interpreter, and waiting for another
    thread to give it back costs more than the rest of a record, or 7 % of a token.
    """
    while True:
        block = token_bytes(ID_BYTES * _BLOCK_IDS)
        yield from (block[at : at + ID_BYTES] for at in range(0, len(block), ID_BYTES))
