"""The client of an HTTP connection, as a route sees it that answers for minutes: whether it is there, and its end."""

import asyncio
import select
from collections.abc import Callable

from relay.net.admission import Presence

_HUNG_UP = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset connection is seen


class ClientLink(Presence):
    """One connection. `BoundedHttp` puts it into the state of a request, as `presence`."""

    __slots__ = ("_transport", "on_gone")

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = None
        self.on_gone: Callable[[], None] | None = None
        """Called when the connection has ended."""

    def made(self, transport: asyncio.Transport) -> None:
        """Begin: the connection is open."""
        self._transport = transport

    def lost(self) -> None:
        """End: the connection has gone."""
        self.gone = True
        self._transport = None
        if self.on_gone is not None:
            self.on_gone()

    @property
    def has_hung_up(self) -> bool:
        """Whether the client has closed its side. That is seen also while nobody reads from the connection."""
        if self._transport is None or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _HUNG_UP)
        return bool(poll.poll(0))

    async def cut(self) -> None:
        """Cut the connection off in the middle of an answer. What waits to be written is not sent."""
        if self._transport is not None:
            self._transport.abort()
        while not self.gone:  # noqa: ASYNC110  # one turn, see below
            await asyncio.sleep(0)  # uvicorn hears of the end in the next turn of the loop
