"""Listening sockets, bound before anything else starts, so that a taken port is one clear line."""

import socket

from relay.core.errors import ConfigurationError


def bind(address: str, *, setting: str) -> socket.socket:
    """Bind a TCP socket to "host:port" without listening yet.

    Raises:
        ConfigurationError: if the port is taken or the host is not this machine's; names `setting`.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
    except (OSError, UnicodeError) as error:
        sock.close()
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{setting}: can't listen on {address}: {why}.") from None
    return sock


def bound_port(sock: socket.socket) -> int:
    """Return the port that `sock` is bound to."""
    return int(sock.getsockname()[1])
