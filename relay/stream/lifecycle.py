"""The life of a stream connection as one state machine: phases, events, and the table of transitions.

Everything that decides which phase a connection is in stands in this file. It does no I/O and knows no transport.
`relay.stream.connection` tells it what has happened and asks it what is allowed now.

Phases
======

    SECURING         the TCP connection is made; the TLS handshake runs (over plain TCP this phase does not exist)
    ACCEPTED         the TCP (and TLS) connection is made; no byte has come yet
    QUEUED           the first bytes have come and wait in the accept queue; reading is paused
    HANDSHAKE        the request is read and checked; it has no answer yet
    UNAUTHENTICATED  the handshake is answered with 101; the token is still to come, or is being checked
    OPEN             the token was accepted: the connection is registered, and the hub writes to it
    CLOSING          a refusal or a close frame was written, or the connection was aborted
    LOST             the TCP connection is gone; its handler still runs
    UNHANDLED        the handler has ended; the TCP connection is still to go
    FINISHED         both are gone

    SECURING → ACCEPTED → QUEUED → HANDSHAKE → UNAUTHENTICATED → OPEN → CLOSING → LOST → FINISHED

is the whole way. A connection can leave it at each phase: for CLOSING when the relay or the client ends it, for LOST
when the network does. The handler is the task that serves the connection. It normally ends after the TCP connection;
it ends first (UNHANDLED) when the handshake takes too long, or when the process stops and cancels it. It begins after
TLS: a connection that is aborted in SECURING has no handler, and is UNHANDLED.

Rules
=====

1. The hub writes in OPEN only. CLOSING never leads back: no frame may follow a close frame (RFC 6455 §5.5.1), and a
   write to a transport whose write side is shut raises, which would end the flush that serves every connection.
2. Before the handshake is answered (UNANSWERED) nothing is written at all. A client that sends a frame this early
   breaks RFC 6455 §4.1, and the library's answer to it would come before the answer to the handshake.
3. Each phase that waits for the other side has a timer (TIMERS). A client that does nothing can't hold a connection.
4. Each pair of phase and event is in TRANSITIONS, or is impossible. An impossible event is an error of the relay, never
   of the client: `next_phase` raises.
5. An event that can race with the end of the connection is allowed after it, and changes nothing. The client may go
   away while its token is looked up: TOKEN_ACCEPTED in CLOSING or LOST keeps the phase. The caller sees that it is not
   OPEN.

Backpressure (reading is paused while the client does not take its answers) is not a phase. It comes and goes within
UNAUTHENTICATED, OPEN and CLOSING and decides nothing here.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final


class Phase(Enum):
    """Where a connection is in its life."""

    SECURING = auto()
    ACCEPTED = auto()
    QUEUED = auto()
    HANDSHAKE = auto()
    UNAUTHENTICATED = auto()
    OPEN = auto()
    CLOSING = auto()
    LOST = auto()
    UNHANDLED = auto()
    FINISHED = auto()

    __hash__ = object.__hash__  # Enum's own hashes the name in Python, and phases are looked up for each read


class Event(Enum):
    """What can happen to a connection."""

    SECURED = auto()
    """The TLS handshake has ended well."""
    FIRST_BYTES = auto()
    """The first bytes came; they wait in the accept queue."""
    READ = auto()
    """The accept queue has let the first bytes through."""
    HANDSHAKE_ACCEPTED = auto()
    """The handshake is answered with 101."""
    HANDSHAKE_REFUSED = auto()
    """The handshake is answered with another status, or it was not HTTP and gets no answer."""
    HANDED_OVER = auto()
    """The TCP connection is another object's from here on, which answers with an event stream (`relay.stream.sse`).

    That object begins in UNAUTHENTICATED, with a token that was used up.
    """
    TOKEN_ACCEPTED = auto()
    """The token was used up, and the connection is registered."""
    CLOSE_WRITTEN = auto()
    """A close frame was written: the relay's own, the answer to the client's, or the library's for a broken frame.

    Also when the client has shut its side without a close frame, and the library has shut the relay's.
    """
    ABORTED = auto()
    """The relay has cut the TCP connection without a close frame."""
    CONNECTION_LOST = auto()
    """The TCP connection is gone (asyncio's `connection_lost`)."""
    HANDLER_ENDED = auto()
    """The task that serves the connection has ended."""


class Timer(Enum):
    """What ends a phase if nothing else does."""

    TLS = auto()
    """The bound on a TLS handshake: `relay.net.tls.HANDSHAKE_WITHIN_S`."""
    HANDSHAKE = auto()
    """The library's `open_timeout`, from the TCP connection to the answer: `listener.TOKEN_WITHIN_S`."""
    TOKEN = auto()
    """The wait for the first frame: `listener.TOKEN_WITHIN_S`. The check of a token has the state store's own
    bounds."""
    HEARTBEAT = auto()
    """The heartbeat loop: age limit, pings without an answer, stalled readers."""
    ABORT = auto()
    """`outgoing.CLOSE_TIMEOUT_S` after the phase began the TCP connection is cut."""
    RELEASE = auto()
    """`outgoing.CLOSE_TIMEOUT_S` after the phase began the references between the connection's parts are cut."""


class ImpossibleEventError(Exception):
    """An event that can't happen in this phase: an error in the relay. Has `phase` and `event`."""

    def __init__(self, phase: Phase, event: Event) -> None:
        super().__init__(f"{event.name} can't happen to a connection in phase {phase.name}.")
        self.phase = phase
        self.event = event


_TABLE: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.SECURING: {
        Event.SECURED: Phase.ACCEPTED,
        Event.ABORTED: Phase.UNHANDLED,
        Event.CONNECTION_LOST: Phase.FINISHED,
    },
    Phase.ACCEPTED: {
        Event.FIRST_BYTES: Phase.QUEUED,
        Event.HANDSHAKE_REFUSED: Phase.CLOSING,  # the client has shut its side without a request
        Event.ABORTED: Phase.CLOSING,
        Event.CONNECTION_LOST: Phase.LOST,
        Event.HANDLER_ENDED: Phase.UNHANDLED,
    },
    Phase.QUEUED: {
        Event.READ: Phase.HANDSHAKE,
        Event.HANDSHAKE_REFUSED: Phase.CLOSING,  # as in ACCEPTED; over TLS this can come while reading is paused
        Event.ABORTED: Phase.CLOSING,
        Event.CONNECTION_LOST: Phase.LOST,
        Event.HANDLER_ENDED: Phase.UNHANDLED,
    },
    Phase.HANDSHAKE: {
        Event.HANDSHAKE_ACCEPTED: Phase.UNAUTHENTICATED,
        Event.HANDSHAKE_REFUSED: Phase.CLOSING,
        Event.HANDED_OVER: Phase.LOST,
        Event.ABORTED: Phase.CLOSING,
        Event.CONNECTION_LOST: Phase.LOST,
        Event.HANDLER_ENDED: Phase.UNHANDLED,
    },
    Phase.UNAUTHENTICATED: {
        Event.TOKEN_ACCEPTED: Phase.OPEN,
        Event.CLOSE_WRITTEN: Phase.CLOSING,
        Event.ABORTED: Phase.CLOSING,
        Event.CONNECTION_LOST: Phase.LOST,
        Event.HANDLER_ENDED: Phase.UNHANDLED,
    },
    Phase.OPEN: {
        Event.CLOSE_WRITTEN: Phase.CLOSING,
        Event.ABORTED: Phase.CLOSING,
        Event.CONNECTION_LOST: Phase.LOST,
        Event.HANDLER_ENDED: Phase.UNHANDLED,
    },
    Phase.CLOSING: {
        Event.TOKEN_ACCEPTED: Phase.CLOSING,  # it was closed while its token was looked up
        Event.ABORTED: Phase.CLOSING,
        Event.CONNECTION_LOST: Phase.LOST,
        Event.HANDLER_ENDED: Phase.UNHANDLED,
    },
    Phase.LOST: {
        Event.TOKEN_ACCEPTED: Phase.LOST,
        Event.ABORTED: Phase.LOST,
        Event.HANDLER_ENDED: Phase.FINISHED,
    },
    Phase.UNHANDLED: {
        Event.ABORTED: Phase.UNHANDLED,
        Event.CONNECTION_LOST: Phase.FINISHED,
    },
    Phase.FINISHED: {
        Event.ABORTED: Phase.FINISHED,  # a server that stops may still call `abort`
    },
}

TRANSITIONS: Final[Mapping[tuple[Phase, Event], Phase]] = MappingProxyType(
    {(phase, event): then for phase, row in _TABLE.items() for event, then in row.items()}
)
"""From a phase and an event to the next phase. A pair that is missing is impossible."""

TIMERS: Final[Mapping[Phase, Timer | None]] = MappingProxyType(
    {
        Phase.SECURING: Timer.TLS,
        Phase.ACCEPTED: Timer.HANDSHAKE,
        Phase.QUEUED: Timer.HANDSHAKE,
        Phase.HANDSHAKE: Timer.HANDSHAKE,
        Phase.UNAUTHENTICATED: Timer.TOKEN,
        Phase.OPEN: Timer.HEARTBEAT,
        Phase.CLOSING: Timer.ABORT,
        Phase.LOST: None,  # nothing of the other side is waited for: the handler ends by itself
        Phase.UNHANDLED: Timer.ABORT,
        Phase.FINISHED: Timer.RELEASE,
    }
)
"""The timer that runs in each phase."""

UNANSWERED: Final = frozenset({Phase.SECURING, Phase.ACCEPTED, Phase.QUEUED, Phase.HANDSHAKE})
"""The handshake has no answer yet: nothing may be written."""
LIVE: Final = frozenset({Phase.UNAUTHENTICATED, Phase.OPEN})
"""The WebSocket is open: a close frame can be written."""
READABLE: Final = UNANSWERED | LIVE
"""What the client sends is looked at. Later only its close frame is."""
GONE: Final = frozenset({Phase.LOST, Phase.FINISHED})
"""The TCP connection is gone: `connection_lost` was called, and nothing will clean up after it again."""


def next_phase(phase: Phase, event: Event) -> Phase:
    """Return the phase that follows `phase` when `event` happens.

    Raises:
        ImpossibleEventError: if it can't happen in this phase.
    """
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise ImpossibleEventError(phase, event) from None
