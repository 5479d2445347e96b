"""Starts the example service as its README says, and gives its port."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support import readme
from tests.support.ports import free_ports
from tests.support.relay_process import REPORTS

FOLDER = readme.ROOT / "examples" / "service"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(readme.ROOT)}
"""The checkout's own relay, whether or not one is installed."""


@contextlib.contextmanager
def example(folder: Path, issuer: str) -> Iterator[int]:
    """Run the example until the end of the block, and then kill it; gives its port."""
    [port] = free_ports(1)
    used = folder / "used-tokens.db"
    command = [sys.executable, str(FOLDER / "reports.py"), "--issuer", issuer, "--url", REPORTS]
    with (folder / "reports.log").open("a+") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--used-tokens", str(used)],
            stderr=subprocess.PIPE,
            stdout=log,
            text=True,
            env=ENVIRONMENT,
        )
        assert process.stderr is not None
        try:
            lines: list[str] = []
            while "Uvicorn running" not in (line := process.stderr.readline()):
                assert line, lines
                lines.append(line)
            yield port
        finally:
            process.kill()
            process.wait(15)
            process.stderr.close()
