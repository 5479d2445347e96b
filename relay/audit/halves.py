"""The check of a long log in two processes: each reads a half, and a checkpoint stands between the two."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.audit.chain import MAX_LINE, Link, unseal
from relay.audit.checkpoints import EVERY
from relay.audit.verdict import Verdict
from relay.audit.verify import open_log, read_lines, verify_after
from relay.core.errors import MalformedError
from relay.core.jws import VerifyKey

HALVES_FROM_BYTES = 128 << 20
"""A shorter log is checked by one process in a second."""

_HEAD_START = 20 << 20
"""Bytes that are checked in the time that a second process needs to begin: 0.14 s of CPU."""

_MARK = b'"action":"audit.checkpoint"'


class Boundary(NamedTuple):
    """The checkpoint in the middle of a log: the number of its file, the byte after it, and its line."""

    file: int
    offset: int
    line: bytes


def find_boundary(files: Sequence[Path], *, from_bytes: int = HALVES_FROM_BYTES) -> Boundary | None:
    """Return the first checkpoint after the middle of a log. None: the log is short, or has none near it.

    Raises:
        OSError: if a file can't be read.
    """
    sizes = [file.stat().st_size for file in files]
    size = sum(sizes)
    middle = (size + min(_HEAD_START, size // 4)) // 2
    if size < from_bytes or len(os.sched_getaffinity(0)) < 2:
        return None
    for number, path in enumerate(files):
        if middle < sizes[number]:
            with path.open("rb") as log:
                if middle > 0:
                    log.seek(middle)
                    log.readline(MAX_LINE)
                for line in islice(read_lines(log), 2 * EVERY):
                    if _MARK in line and _is_checkpoint(line):
                        return Boundary(number, log.tell(), line)
        middle -= sizes[number]
    return None


def _is_checkpoint(line: bytes) -> bool:
    with suppress(MalformedError):
        sealed = unseal(line)
        return line.endswith(b"\n") and sealed.intact and sealed.checkpoint is not None
    return False


def lines_until(log: BinaryIO, offset: int) -> Iterator[bytes]:
    """Read the lines of a file up to a place between two of them."""
    for line in read_lines(log):
        yield line
        offset -= len(line)
        if offset <= 0:
            return


class SecondHalf:
    """The other process, and its verdict."""

    def __init__(self, receiving: Connection) -> None:
        self._receiving = receiving

    def verdict(self) -> Verdict | None:
        """Wait for the verdict. None: the process died, or could not read the log."""
        with suppress(EOFError):
            found = self._receiving.recv()
            return found if isinstance(found, Verdict) else None
        return None


@contextmanager
def second_half(
    files: Sequence[Path], boundary: Boundary, *, head: Link | None, keys: Mapping[str, VerifyKey] | None
) -> Iterator[SecondHalf]:
    """Check what follows the boundary in another process, until the end of the `with` block."""
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks
    receiving, sending = context.Pipe(duplex=False)
    # raw, because a key can't be passed on; and a folder of keys is read by a library that takes longer to import
    raw = None if keys is None else {kid: key.key.public_bytes_raw() for kid, key in keys.items()}
    process = context.Process(target=_check, args=(sending, list(files), boundary, head, raw), daemon=True)
    process.start()
    sending.close()
    try:
        yield SecondHalf(receiving)
    finally:
        process.terminate()
        process.join()
        receiving.close()


def _check(
    sending: Connection,
    files: list[Path],
    boundary: Boundary,
    head: Link | None,
    raw: Mapping[str, bytes] | None,
) -> None:
    keys = None if raw is None else {kid: _key(kid, public) for kid, public in raw.items()}
    with ExitStack() as stack:
        logs = [stack.enter_context(open_log(file)) for file in files[boundary.file :]]
        logs[0].seek(boundary.offset)
        rest = [read_lines(log) for log in logs]
        sending.send(verify_after(unseal(boundary.line), rest, head=head, keys=keys))


def _key(kid: str, public: bytes) -> VerifyKey:
    return VerifyKey(kid=kid, algorithm="EdDSA", key=Ed25519PublicKey.from_public_bytes(public))
