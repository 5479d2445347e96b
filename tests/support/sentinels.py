"""A Sentinel, which promotes a replica when the master does not answer any more."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.engines import WITHIN_S, EngineServer, find_program
from tests.support.ports import free_ports

NAME = "prices"
"""The master's name, the last part of the setting `engine.url`."""
SETTINGS = """\
port {own}
bind 127.0.0.1
dir {folder}
logfile {folder}/sentinel.log
sentinel monitor {name} 127.0.0.1 {master} 1
sentinel down-after-milliseconds {name} 500
sentinel failover-timeout {name} 5000
"""


@contextlib.contextmanager
def sentinel(folder: Path, master: int) -> Iterator[EngineServer]:
    """Run a Sentinel in an empty folder, which watches the master of this port. Any Redis can be one."""
    (own,) = free_ports(1)
    settings = folder / "sentinel.conf"
    settings.write_text(SETTINGS.format(own=own, folder=folder, name=NAME, master=master))
    found = EngineServer("", folder, own)
    with subprocess.Popen([find_program("redis"), str(settings), "--sentinel"]) as process:
        try:
            found.wait()
            yield found
        finally:
            process.kill()
            process.wait(WITHIN_S)


def sentinel_url(*ports: int, name: str = NAME) -> str:
    """Return the setting `engine.url` for Sentinels on these ports."""
    return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{name}"
