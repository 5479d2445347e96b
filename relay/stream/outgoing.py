"""What an open connection of any transport has in common: the hub writes to it, and its reader may stall.

`StreamConnection` is the WebSocket, `SseConnection` the event stream. Which phase a connection is in decides
`relay.stream.lifecycle`.
"""

import time
from collections.abc import Callable

from relay.core.closes import Close, close_for
from relay.core.errors import Reason
from relay.core.hub import Hub
from relay.core.protocol import ClientProtocol
from relay.core.subscribers import Subscriber
from relay.stream.lifecycle import Event, Phase

CLOSE_TIMEOUT_S = 1.0
"""Seconds that a client has to answer a close, or to take the last bytes. A browser answers in one round trip."""
STALLED_CHECKS = 24
"""Checks in a row between which the kernel took no byte: 29 to 30 s. That is longer than any radio gap after which TCP
goes on."""


class Outgoing:
    """The relay's side of one connection, from its acceptance to its end."""

    __slots__ = (
        "_hub",
        "_opened",
        "_stalled_bytes",
        "_stalled_checks",
        "_subscriber",
        "client",
        "ended",
        "pending",
        "phase",
        "write",
    )

    phase: Phase
    ended: Close | None
    """How the relay has ended the connection, if it has."""

    # The hub's sink. Both are the transport's own methods, because they are called for each delivery.
    write: Callable[[bytes], None]
    """Write whole frames. Only the hub and `check` call it, in phase OPEN."""
    pending: Callable[[], int]
    """Return the bytes that the kernel has not taken yet."""

    # these three are set while the phase is OPEN
    client: ClientProtocol | None
    _hub: Hub | None
    _subscriber: Subscriber | None

    _opened: float
    _stalled_bytes: int
    _stalled_checks: int

    def _start(self, opened: float) -> None:
        """Set what is the same for each transport. `opened` is a time of `time.monotonic`."""
        self._opened = opened
        self.ended = None
        self.client = self._hub = self._subscriber = None
        self._stalled_bytes = self._stalled_checks = 0

    # what each transport does in its own way

    def _advance(self, event: Event) -> Phase:
        """Go to the phase that follows `event`."""
        raise NotImplementedError

    def end(self, close: Close) -> None:
        """End the connection without waiting, and tell the client why."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the TCP connection at once."""
        raise NotImplementedError

    def _ping(self) -> None:
        """Ask the client for a sign of life, or drop it if it gave none. Only called while no byte waits."""

    # what the service, the registry and the heartbeat loop call

    @property
    def messages_out(self) -> int:
        """Return how many messages the hub has sent; 0 if the phase is not OPEN."""
        return 0 if self._subscriber is None else self._subscriber.messages

    @property
    def age_s(self) -> float:
        """Return for how many seconds the connection has been open, whatever happened to the wall clock."""
        return time.monotonic() - self._opened

    def attach(self, hub: Hub, subscriber: Subscriber, client: ClientProtocol) -> None:
        """Let the hub write to the connection, until it closes. If it has closed already, `client` is closed."""
        if self._advance(Event.TOKEN_ACCEPTED) is Phase.OPEN:
            self._hub, self._subscriber, self.client = hub, subscriber, client
        else:  # it was closed while its token was looked up
            client.close(Reason.CLIENT_CLOSED)

    def announce_restart(self, *, delay_ms: int) -> None:
        """Tell the client that the relay restarts, and after which delay to reconnect."""
        if self.client is not None:
            self.client.announce_restart(delay_ms=delay_ms)

    def overflow(self) -> None:
        """See `relay.core.subscribers.Sink.overflow`."""
        self.end(close_for(Reason.SLOW_CONSUMER))

    def drop(self, close: Close) -> None:
        """Cut the TCP connection without a last message: the client does not read, or is gone."""
        if self.phase in (Phase.UNAUTHENTICATED, Phase.OPEN):
            self.ended = close
        self._detach(close.reason)
        self.abort()

    def check(self, now: float, *, ping: bool) -> None:
        """Do what is due at `now`: age limit, stalled reader, and a ping. The heartbeat loop calls this.

        `now` is a time of `time.monotonic`.
        """
        if self.phase is not Phase.OPEN or self.client is None:
            return
        if self.client.next_deadline() <= now:
            close = self.client.tick(now)
            if close is not None:
                self.end(close)
                return
        pending = self.pending()
        if not pending or pending < self._stalled_bytes:
            self._stalled_checks = 0
        else:
            self._stalled_checks += 1
            if self._stalled_checks >= STALLED_CHECKS:
                self.drop(close_for(Reason.READER_STALLED))
                return
        self._stalled_bytes = pending
        # a slow reader would not get to the ping in time: while bytes wait, only their progress counts
        if ping and not pending:
            self._ping()

    def _detach(self, reason: Reason) -> None:
        """Take the connection out of the hub, which writes nothing to it from here on."""
        client, self.client = self.client, None
        if client is not None:
            client.close(reason)
        self._hub = self._subscriber = None

    def _drained(self) -> None:
        """Go on: the kernel has taken all bytes."""
        self._stalled_checks = 0  # even if bytes wait again at the next check
        if self._hub is not None and self._subscriber is not None:
            self._hub.drained(self._subscriber)
