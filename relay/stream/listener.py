"""The stream's listener: the library's server with the socket options, limits and times that suit prices."""

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
"""Seconds for the handshake, and again for a token as first frame. Mobile networks take 2 s on a bad day."""
NOTSENT_LOWAT_BYTES = 8192
"""Unsent bytes that the kernel takes. Without it megabytes of old prices queue where nobody can replace them: a
reader of 20 KB/s on a stream of 145 KB/s then sees prices 13 s old; with 16 KiB 1.1 s and now and then 1.6, with
4 KiB 0.7 s."""
USER_TIMEOUT_MS = 30_000
"""TCP_USER_TIMEOUT: sent bytes that nobody acknowledges for so long end the connection."""
BACKLOG = 4096
LISTENERS = 4
"""On the same socket. uvloop accepts one connection a listener and turn; in a burst, when turns take long, connections
would come in at half the pace at which tokens are made for them."""


async def listen(
    sock: socket.socket,
    *,
    tls: ssl.SSLContext | None,
    handle: Callable[[ServerConnection], Awaitable[None]],
    create_connection: Callable[..., ServerConnection],
    process_request: Callable[[ServerConnection, Request], Awaitable[Response | None]],
) -> list[Server]:
    """Listen on a bound socket, over TLS where `tls` is given."""
    # accepted sockets inherit both
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    options: dict[str, Any] = {
        "backlog": BACKLOG,
        "ssl": tls,
        "ssl_handshake_timeout": HANDSHAKE_WITHIN_S if tls else None,
        "create_connection": create_connection,
        "process_request": process_request,
        "select_subprotocol": _select_subprotocol,
        "compression": None,  # 12 KB instead of 67 KB a connection, and the same bytes for everybody
        "server_header": None,
        "open_timeout": TOKEN_WITHIN_S,
        "ping_interval": None,  # `relay.stream.heartbeat` pings
        "close_timeout": CLOSE_TIMEOUT_S,
        "max_size": MAX_FRAME_BYTES,
        "max_queue": 4,
        # tell us as soon as one byte waits, and as soon as none does. A TLS transport is full at its limit, not
        # above it: with 0 every second write would be, and handshakes would wait for what never comes
        "write_limit": 1 if tls else 0,
    }
    sockets = [sock, *(sock.dup() for _ in range(LISTENERS - 1))]
    return [await serve(handle, sock=each, **options) for each in sockets]


def _select_subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Select relay.v1 if it was offered. Offering none is fine; the token is never echoed."""
    return Subprotocol(PROTOCOL) if PROTOCOL in offered else None
