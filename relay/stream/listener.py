"""The WebSocket listener: the library's server with socket options, limits and timeouts that suit prices."""

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from relay.core.messages import MAX_FRAME_BYTES, PROTOCOL
from relay.net.tls import HANDSHAKE_WITHIN_S
from relay.stream.connection import CLOSE_TIMEOUT_S

TOKEN_WITHIN_S = 5
"""Seconds for the handshake, and again for a token as first frame. Bad mobile networks need 2 s."""
NOTSENT_LOWAT_BYTES = 8192
"""Unsent bytes that the kernel takes. Without this limit, megabytes of old prices queue in the kernel, where the hub
can't replace them. A reader of 20 KB/s on a stream of 145 KB/s then sees prices that are 13 s old. With 16 KiB it is
1.1 s and sometimes 1.6 s, with 4 KiB 0.7 s."""
USER_TIMEOUT_MS = 30_000
"""TCP_USER_TIMEOUT: the kernel ends a connection whose sent bytes are not acknowledged for so long."""
BACKLOG = 4096
LISTENERS = 4
"""Listeners on the same socket. uvloop accepts one connection for each listener in a turn of the loop. In a burst
turns take long, and one listener would accept connections at half the rate at which tokens are issued."""


async def listen(
    sock: socket.socket,
    *,
    tls: ssl.SSLContext | None,
    handle: Callable[[ServerConnection], Awaitable[None]],
    create_connection: Callable[..., ServerConnection],
    process_request: Callable[[ServerConnection, Request], Awaitable[Response | None]],
) -> list[Server]:
    """Listen on a bound socket, over TLS if `tls` is given."""
    # accepted sockets inherit both options
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    options: dict[str, Any] = {
        "backlog": BACKLOG,
        "ssl": tls,
        "ssl_handshake_timeout": HANDSHAKE_WITHIN_S if tls else None,
        "create_connection": create_connection,
        "process_request": process_request,
        "select_subprotocol": _select_subprotocol,
        "compression": None,  # 12 KB instead of 67 KB for each connection, and the same bytes for all
        "server_header": None,
        "open_timeout": TOKEN_WITHIN_S,
        "ping_interval": None,  # the heartbeat loop pings
        "close_timeout": CLOSE_TIMEOUT_S,
        "max_size": MAX_FRAME_BYTES,
        "max_queue": 4,
        # so that `resume_writing` is called as soon as no byte waits. A TLS transport is full at its limit, not above
        # it: with 0 every second write would fill it, and handshakes would wait for an event that never comes
        "write_limit": 1 if tls else 0,
    }
    sockets = [sock, *(sock.dup() for _ in range(LISTENERS - 1))]
    return [await serve(handle, sock=each, **options) for each in sockets]


def _select_subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Select relay.v1 if the client offers it. A client may offer none. The token is never sent back."""
    return Subprotocol(PROTOCOL) if PROTOCOL in offered else None
