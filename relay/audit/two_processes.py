"""The check of a long log in two processes: this one begins at its beginning, the other one at its end.

The log is cut into parts, at checkpoints. Each process takes the next part from its side, until there are none, so that
both end at the same time, however fast each of them is. A pipe has a byte for each part that nobody has taken.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.audit.chain import MAX_LINE, Link, unseal
from relay.audit.checkpoints import EVERY
from relay.audit.verdict import Verdict
from relay.audit.verify import Part, open_log, read_lines, verify_last_parts
from relay.core.errors import MalformedError
from relay.core.jws import VerifyKey

SHARED_FROM_BYTES = 128 << 20
"""A shorter log is checked by one process in a second."""

_PARTS = 64
_LEAST_PART = 8 << 20
"""Bytes of a part, at least: 0.04 s of CPU. One process may wait for the other for as long as one part takes."""

_MARK = b'"action":"audit.checkpoint"'
_LINES = 32
"""Lines that are read at a time. Few, because each can have `MAX_LINE` bytes."""


class Boundary(NamedTuple):
    """A checkpoint between two parts: the number of its file, the byte after it, and its line."""

    file: int
    offset: int
    line: bytes


def find_boundaries(
    files: Sequence[Path], *, from_bytes: int = SHARED_FROM_BYTES, part_bytes: int = _LEAST_PART
) -> list[Boundary]:
    """Return the checkpoints at which a log is cut into parts. None: the log is short, or the machine has one core.

    Raises:
        OSError: if a file can't be read.
    """
    sizes = [file.stat().st_size for file in files]
    size = sum(sizes)
    if size < from_bytes or len(os.sched_getaffinity(0)) < 2:
        return []
    count = min(_PARTS, size // part_bytes)
    found: list[Boundary] = []
    for number in range(1, count):
        boundary = _first_checkpoint(files, sizes, size * number // count)
        if boundary is not None and (not found or boundary[:2] > found[-1][:2]):
            found.append(boundary)
    return found


def _first_checkpoint(files: Sequence[Path], sizes: Sequence[int], at: int) -> Boundary | None:
    """Return the first checkpoint after a byte of the log. None: there is none near it."""
    for number, path in enumerate(files):
        if at < sizes[number]:
            with path.open("rb") as log:
                if at > 0:
                    log.seek(at)
                    log.readline(MAX_LINE)
                for line in islice(read_lines(log), 2 * EVERY):
                    if _MARK in line and _is_checkpoint(line):
                        return Boundary(number, log.tell(), line)
        at -= sizes[number]
    return None


def _is_checkpoint(line: bytes) -> bool:
    with suppress(MalformedError):
        sealed = unseal(line)
        return line.endswith(b"\n") and sealed.intact and sealed.checkpoint is not None
    return False


def parts_of(logs: Sequence[BinaryIO], boundaries: Sequence[Boundary]) -> list[Part]:
    """Return the parts of a log, whose files are open. They are read when they are iterated over."""
    begins = [(0, 0), *((boundary.file, boundary.offset) for boundary in boundaries)]
    ends = [*begins[1:], (len(logs) - 1, None)]
    found = []
    for boundary, (first, begin), (last, end) in zip([None, *boundaries], begins, ends, strict=True):
        files = [
            (number, _lines(logs[number], begin if number == first else 0, end if number == last else None))
            for number in range(first, last + 1)
        ]
        found.append(Part(boundary and unseal(boundary.line), files))
    return found


def _lines(log: BinaryIO, begin: int, end: int | None) -> Iterator[bytes]:
    return chain.from_iterable(_batches(log, begin, end))


def _batches(log: BinaryIO, begin: int, end: int | None) -> Iterator[list[bytes]]:
    """Read the lines between two places of a file, some at a time."""
    log.seek(begin)
    lines = read_lines(log)
    while (end is None or begin < end) and (batch := list(islice(lines, _LINES))):
        begin += sum(map(len, batch))
        while end is not None and begin > end:  # lines of the next part, which reads them again
            begin -= len(batch.pop())
        yield batch


class OtherProcess:
    """The other process, and its verdict on the parts that it took."""

    def __init__(self, receiving: Connection, untaken: int) -> None:
        self._receiving = receiving
        self._untaken = untaken

    def take(self) -> bool:
        """Take the next part for this process. False: the other one has taken it and all that follow."""
        return _take(self._untaken)

    def verdict(self) -> Verdict | None:
        """Wait for the verdict. None: a part is not good, or the process died or could not read the log."""
        with suppress(EOFError):
            found = self._receiving.recv()
            return found if isinstance(found, Verdict) else None
        return None


def _take(untaken: int) -> bool:
    return bool(os.read(untaken, 1))


def start_method() -> str:
    """Return how the other process starts.

    A fork is at work at once. A new interpreter first takes 0.3 s of CPU, a twentieth of the check of a gigabyte; but a
    fork while this process has other threads, as those of DuckDB, would copy their locks.
    """
    return "fork" if len(list(Path("/proc/self/task").iterdir())) == 1 else "spawn"


@contextmanager
def other_process(
    files: Sequence[Path],
    boundaries: Sequence[Boundary],
    *,
    head: Link | None,
    keys: Mapping[str, VerifyKey] | None,
) -> Iterator[OtherProcess]:
    """Check parts from the end on in another process, until the end of the `with` block."""
    context = multiprocessing.get_context(start_method())
    receiving, sending = context.Pipe(duplex=False)
    untaken, giving = context.Pipe(duplex=False)
    os.write(giving.fileno(), bytes(len(boundaries)))
    giving.close()
    # raw, because a key can't be passed on; and a folder of keys is read by a library that takes longer to import
    raw = None if keys is None else {kid: key.key.public_bytes_raw() for kid, key in keys.items()}
    arguments = (sending, untaken, list(files), list(boundaries), head, raw)
    process = context.Process(target=_check, args=arguments, daemon=True)  # type: ignore[attr-defined]  # typeshed
    # Ctrl-C is for this process, which ends the other one
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    sending.close()
    try:
        yield OtherProcess(receiving, untaken.fileno())
    finally:
        process.terminate()
        process.join()
        receiving.close()
        untaken.close()


def _check(
    sending: Connection,
    untaken: Connection,
    files: list[Path],
    boundaries: list[Boundary],
    head: Link | None,
    raw: Mapping[str, bytes] | None,
) -> None:
    keys = None if raw is None else {kid: _key(kid, public) for kid, public in raw.items()}
    with ExitStack() as stack, suppress(BrokenPipeError):  # nobody waits for the verdict any more
        parts = parts_of([stack.enter_context(open_log(file)) for file in files], boundaries)
        taken = partial(_take, untaken.fileno())
        sending.send(verify_last_parts(parts, is_ours=taken, head=head, keys=keys))


def _key(kid: str, public: bytes) -> VerifyKey:
    return VerifyKey(kid=kid, algorithm="EdDSA", key=Ed25519PublicKey.from_public_bytes(public))
