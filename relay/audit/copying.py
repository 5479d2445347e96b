"""A copy of the audit log on standard output, for platforms that collect what a container prints.

The file stays the log: it is what `relay audit` reads, what gaps are about, and what must be written before a token is
given. A copy whose reader has gone is said so in the process's own log, and the relay goes on. A reader that stops
reading without going holds up the thread that writes both, and so, as a disk that hangs, the issuing of tokens.

A checkpoint is a signed head. Kept where nobody can change them, the checkpoints alone prove the file whole.
"""

import os
from collections.abc import Sequence

import structlog

from relay.audit.chain import Link

_CHECKPOINT = b'"action":"audit.checkpoint"'
# a quote inside a string is always escaped, so this can't match in what came from outside

_log = structlog.get_logger("relay.audit")


class Copy:
    """Writes the log's lines, or its checkpoints alone, to a descriptor as well. For one thread at a time."""

    def __init__(self, *, checkpoints_only: bool, descriptor: int = 1) -> None:
        self._checkpoints_only = checkpoints_only
        self._descriptor = descriptor
        self._failing = False

    def write(self, lines: Sequence[tuple[bytes, Link]]) -> None:
        """Copy lines that are in the file now. Never raises."""
        data = b"".join(
            line + b"\n" for line, _ in lines if not self._checkpoints_only or _CHECKPOINT in line
        )
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            if not self._failing:
                _log.error("the audit log can't be copied to standard output", error=error.strerror)
            self._failing = True
        else:
            self._failing = False
