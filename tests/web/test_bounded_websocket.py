"""WebSockets of an HTTP listener: a client that answers no ping is cut off, also if it reads nothing."""

import asyncio

import uvicorn
from starlette.types import Receive, Scope, Send

from relay.web.bounded_websocket import BoundedWebSocket
from tests.support.raw_websocket import open_raw_websocket


async def test_a_dead_client_is_cut_off() -> None:
    """Neither the connection nor the application waits until the client has read its buffer."""
    ended = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "x" * 65_536})
        finally:
            ended.set()

    config = uvicorn.Config(app, ws=BoundedWebSocket, lifespan="off", log_config=None)
    config.ws_ping_interval = config.ws_ping_timeout = 0.05
    server = uvicorn.Server(config)
    config.load()
    listener = await asyncio.get_running_loop().create_server(
        lambda: BoundedWebSocket(config, server.server_state, {}, refuse=print), "127.0.0.1", 0
    )
    # the handshake's bytes go to the protocol that uvicorn's HTTP side would hand them to
    port = listener.sockets[0].getsockname()[1]
    async with (
        listener,
        open_raw_websocket(port, "/", origin="http://127.0.0.1", receive_buffer=4096) as wire,
    ):
        assert await wire.shake() == 101
        async with asyncio.timeout(10):
            await ended.wait()
