"""What `relay serve` prints when everything accepts connections: a line for each listener, and the process id."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """The public addresses, and where to print.

    If the audit log is copied to standard output, nothing else may be written there: `is_error` is standard error.
    """

    url: str
    stream_url: str
    is_error: bool

    def show(self, ports: Mapping[str, int | None], note: str = "") -> None:
        """Print the lines. `ports` are those of the listeners; the note follows the process id."""
        out = sys.stderr if self.is_error else sys.stdout
        print(f"public   http port {ports.get('http') or '-'}   {self.url}", file=out)
        print(f"stream   ws port {ports.get('stream') or '-'}   {self.stream_url}", file=out)
        print(f"internal http port {ports['internal']}   pid {os.getpid()}{note}", file=out, flush=True)
