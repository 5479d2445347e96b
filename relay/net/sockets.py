"""Listening sockets and the limit of open files.

Sockets are bound before anything else starts, so that a port in use is one clear error.
"""

import resource
import socket

from relay.core.errors import ConfigurationError

MAX_OPEN_FILES = 1 << 20
"""The most that is ever asked for. Some systems allow a billion, and programs that close all of them take minutes."""
USER_TIMEOUT_MS = 30_000
"""TCP_USER_TIMEOUT: the kernel ends a connection whose sent bytes are not acknowledged for so long."""


def bind(address: str, *, setting: str, is_shared: bool = False) -> socket.socket:
    """Bind a TCP socket to "host:port" without listening yet.

    With `is_shared`, several sockets may have this address, and the kernel spreads connections over those that listen.

    Raises:
        ConfigurationError: if the port is in use or the host is not this machine's. It names `setting`.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, int(port)))
    except (OSError, UnicodeError) as error:
        sock.close()
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{setting}: can't listen on {address}: {why}.") from None
    return sock


def open_files() -> int:
    """Return how many files and sockets a relay may have open on this machine. See `raise_file_limit`."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)


def raise_file_limit() -> None:
    """Raise this process's limit of open files to the hard limit.

    The usual limit of 1024 is for programs that use `select`. Here one address could take all of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < open_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files(), hard))


def bound_port(sock: socket.socket) -> int:
    """Return the port that `sock` is bound to."""
    return int(sock.getsockname()[1])
