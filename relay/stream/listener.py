"""The WebSocket listener: the library's server with socket options, limits and timeouts that suit prices."""

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from websockets import http11
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from relay.core.messages import MAX_FRAME_BYTES, PROTOCOL
from relay.net.sockets import USER_TIMEOUT_MS
from relay.stream.outgoing import CLOSE_TIMEOUT_S
from relay.web.head_limits import MAX_HEAD_BYTES, MAX_HEADERS

TOKEN_WITHIN_S = 5
"""Seconds for the handshake, and again for a token as first frame. Bad mobile networks need 2 s."""
NOTSENT_LOWAT_BYTES = 8192
"""Unsent bytes that the kernel takes. Without this limit, megabytes of old prices queue in the kernel, where the hub
can't replace them. A reader of 20 KB/s on a stream of 145 KB/s then sees prices that are 13 s old. With 16 KiB it is
1.1 s and sometimes 1.6 s, with 4 KiB 0.7 s."""
BACKLOG = 4096
LISTENERS = 4
"""Listeners on the same socket. uvloop accepts one connection for each listener in a turn of the loop. In a burst
turns take long, and one listener would accept connections at half the rate at which tokens are issued."""


async def listen(
    sock: socket.socket,
    *,
    tls: bool,
    handle: Callable[[ServerConnection], Awaitable[None]],
    create_connection: Callable[..., ServerConnection],
    process_request: Callable[[ServerConnection, Request], Awaitable[Response | None]],
) -> list[Server]:
    """Listen on a bound socket. With `tls` the connections speak TLS: `create_connection` begins it."""
    # the bounds of all listeners; the library's own are 8 KB a line and 128 headers
    http11.MAX_LINE_LENGTH, http11.MAX_NUM_HEADERS = MAX_HEAD_BYTES, MAX_HEADERS
    # accepted sockets inherit both options
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    options: dict[str, Any] = {
        "backlog": BACKLOG,
        "create_connection": create_connection,
        "process_request": process_request,
        "select_subprotocol": _select_subprotocol,
        "compression": None,  # 12 KB instead of 67 KB for each connection, and the same bytes for all
        "server_header": None,
        "logger": logging.getLogger("websockets.server"),  # otherwise looked up for each connection
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


def hand_over(servers: Sequence[Server]) -> None:
    """Accept no further connections: another process accepts from the same socket. Open connections stay.

    Handshakes that have begun are answered as ever.
    """
    for server in servers:
        # the library asks this before it answers 101, and would refuse with 503
        server.is_serving = lambda: True  # type: ignore[method-assign]  # this one instance
        server.close(close_connections=False)


def _select_subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Select relay.v1 if the client offers it. A client may offer none. The token is never sent back."""
    return Subprotocol(PROTOCOL) if PROTOCOL in offered else None
