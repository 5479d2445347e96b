"""A publisher's WebSocket to /v1/ingest, read frame by frame."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect

from tests.support.relay_process import PUBLISHER_KEY

ALL_CHANNELS_KEY = "everything.secret"
"""The key of a publisher that may publish to every channel."""
ALL_CHANNELS_SECTION = f"""
[publishers.everything]
secret_sha256 = ["{hashlib.sha256(b"secret").hexdigest()}"]
channels = [">"]
"""
"""That publisher's settings."""


class Ingesting(Protocol):
    """Something with an internal listener."""

    @property
    def internal_url(self) -> str:
        """Return the listener's URL."""
        ...


class Publishing:
    """A publisher's connection, frame by frame."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.id = 0
        self.welcome: dict[str, Any] = {}

    def line(self, channel: str, data: Any, **more: Any) -> str:
        """Return the next message."""
        self.id += 1
        return json.dumps({"type": "publish", "id": self.id, "channel": channel, "data": data} | more)

    async def send(self, *lines: str) -> None:
        """Send one frame."""
        await self.socket.send("\n".join(lines))

    async def next(self) -> dict[str, Any]:
        """Return the next frame."""
        async with asyncio.timeout(20):
            frame = json.loads(await self.socket.recv())
        assert isinstance(frame, dict)
        return frame

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; returns code and reason."""
        async with asyncio.timeout(20):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code, self.socket.close_reason or ""


@contextlib.asynccontextmanager
async def publishing(relay: Ingesting, key: str = PUBLISHER_KEY) -> AsyncIterator[Publishing]:
    """Connect, and read the welcome."""
    async with connect(
        relay.internal_url.replace("http", "ws") + "/v1/ingest",
        additional_headers={"Authorization": f"Bearer {key}"},
        proxy=None,
        max_size=None,
    ) as socket:
        publisher = Publishing(socket)
        publisher.welcome = await publisher.next()
        assert publisher.welcome["type"] == "welcome"
        assert publisher.welcome["protocol"] == "relay.ingest.v1"
        yield publisher
