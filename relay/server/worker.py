"""What a worker of `relay serve --workers` inherits from its supervisor."""

import asyncio
import os
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from relay.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker: the folder in which the workers of a supervisor find each other, and its listening sockets.

    `sockets` has a descriptor for each listener. The supervisor keeps each of them open too.
    """

    folder: str
    sockets: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """Read the value of `--worker`.

        Raises:
            ConfigurationError: if it is none.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError:
            raise ConfigurationError(
                "--worker is for relay serve --workers, which starts the workers."
            ) from None

    def __str__(self) -> str:
        return msgspec.json.encode(asdict(self)).decode()

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def inherited(self, name: str) -> socket.socket:
        """Return the socket of a listener."""
        return socket.socket(fileno=self.sockets[name])


def end_with_supervisor() -> None:
    """Drain and stop if the supervisor is killed. Its end of standard input closes then."""

    def on_end() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            os.kill(os.getpid(), signal.SIGTERM)

    loop = asyncio.get_running_loop()
    loop.add_reader(0, on_end)
