"""The TLS handshake of an accepted connection, begun by the protocol object that has counted the connection.

`create_server(ssl=…)` would tell nobody of a connection before its handshake has ended: 10,000 silent connections then
took 500 MB for five seconds, and no limit counted them. So the listeners accept plain TCP, count the connection, and
begin TLS here.
"""

import asyncio
import ssl
from collections.abc import Coroutine, Generator
from typing import Any, Protocol, cast

from relay.net.tls import HANDSHAKE_WITHIN_S


class Owner(Protocol):
    """The protocol object of one accepted connection, over TCP first and over TLS then."""

    def connection_secured(self, transport: asyncio.Transport, /) -> None:
        """Take the transport that speaks TLS: the handshake has ended well."""
        ...

    def data_received(self, data: bytes, /) -> None:
        """See `asyncio.Protocol`."""
        ...

    def connection_lost(self, exc: Exception | None, /) -> None:
        """Clean up: the handshake failed, and the TCP connection is gone."""
        ...


class TlsHandshake(asyncio.Protocol):
    """One handshake. Make it in `connection_made`, before the first byte is read.

    To abort the TCP transport ends the handshake. It ends by itself after `HANDSHAKE_WITHIN_S`.
    """

    def __init__(self, tcp: asyncio.Transport, context: ssl.SSLContext, owner: Owner) -> None:
        self._early: list[bytes] = []
        self._lost = False
        loop = asyncio.get_running_loop()
        begun = _Begun(
            loop.start_tls(tcp, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_WITHIN_S)
        )
        self._task = loop.create_task(self._run(begun, tcp, owner))

    async def _run(self, begun: "_Begun", tcp: asyncio.Transport, owner: Owner) -> None:
        try:
            transport = await begun
        except OSError:  # ssl.SSLError too: the client went, was too slow, or does not speak our TLS
            transport = None
        if transport is None or self._lost or tcp.is_closing():
            tcp.abort()
            owner.connection_lost(None)
            return
        transport.set_protocol(
            cast("asyncio.Protocol", owner)
        )  # first: a limit for writes may pause them at once
        owner.connection_secured(transport)
        if self._early:
            owner.data_received(b"".join(self._early))

    # between the end of the handshake and the next turn of the loop

    def data_received(self, data: bytes) -> None:
        """Keep what came together with the end of the handshake."""
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """See `asyncio.Protocol`."""
        self._lost = True


class _Begun:
    """A coroutine whose first step runs at once, and not with the task that awaits it.

    uvloop reads from a new connection as soon as `connection_made` returns. The first bytes must find TLS.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, asyncio.Transport | None]) -> None:
        self._coroutine = coroutine
        self._awaited = [coroutine.send(None)]

    def __await__(self) -> Generator[Any, Any, asyncio.Transport | None]:
        try:
            yield self._awaited.pop()  # kept nowhere: the error of a future refers to this frame
        except BaseException as error:  # noqa: BLE001  # the coroutine's own to handle
            return self._coroutine.throw(error)  # type: ignore[no-any-return]  # what `send` returns
        return (yield from self._coroutine.__await__())
