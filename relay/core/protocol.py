"""One connection's side of relay.v1, as a state machine without I/O.

The shell feeds it text frames and the time, and asks when it next wants to be woken; it writes through the hub
and answers with a `Close` when the connection has to end. What a client may send when:

    state     auth        refresh            subscribe, unsubscribe, ping  unknown type  not a message
    OPEN      close 1008  asks for a check   answered                      error frame   close 1008
    CLOSED    ignored     ignored            ignored                       ignored       ignored

(`auth` is a first frame only, which the shell takes, because checking a token waits for the state store. For the same
reason a `refresh` is handed back as a `RefreshRequest`; the shell comes back with the new token's claims, or why not.)

Times are Unix seconds on one clock that the shell passes in as `now`; frames carry Unix milliseconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from relay.core import messages
from relay.core.channels import granted_interval
from relay.core.closes import Close, answer_for, close_for
from relay.core.errors import MalformedError, Reason
from relay.core.events import Action
from relay.core.hub import Hub
from relay.core.patterns import is_pattern, is_wildcard
from relay.core.scope import Scope
from relay.core.subscribers import Subscriber
from relay.core.subscriptions import SubscribeRequest
from relay.core.token_bucket import TokenBucket

FRAMES_PER_S = 10
FRAME_BURST = 20
"""A page that subscribes to a screen of widgets one by one sends some dozens; Binance allows 5 a second."""
MATCHES_A_FRAME = 500
"""Channels matched by the patterns of a subscription that cost as much as one more frame, about a millisecond of
everybody's time. They may be owed: one large pattern is always taken, and the next frames wait for it."""
WARN_BEFORE_S = 60
"""Seconds before its end at which a connection is warned: a new token takes one request, and a few retries."""


class State(Enum):
    """Whether the connection still takes frames."""

    OPEN = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one connection may do, settled when it was let in. `expires_at` is in Unix seconds.

    `floor_ms` is the fastest interval that its token and its endpoint allow.
    """

    connection: str
    scope: Scope
    expires_at: float
    floor_ms: int = 0


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """The client sent a new token: check it, then call `refreshed` or `refresh_refused`."""

    token: str = field(repr=False)
    id: int | None


Report = Callable[[Action, Sequence[str], Reason | None], None]
"""Called for the audit log: what happened, to which channels, and why if it was refused.

The first call of each connection is `CONNECT_ACCEPTED`, with what it subscribes to as it opens: one record and not
two, because nearly all connections subscribe once, in their URL.
"""


class ClientProtocol:
    """The relay's side of one connection, from its admission to its end."""

    __slots__ = (
        "_bucket",
        "_expires_at",
        "_floor_ms",
        "_hub",
        "_refused_in_a_row",
        "_report",
        "_scope",
        "_subscriber",
        "_terms",
        "_warned",
        "state",
    )

    def __init__(self, *, hub: Hub, subscriber: Subscriber, terms: Terms, report: Report, now: float) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._terms = terms
        self._scope = terms.scope
        self._expires_at = terms.expires_at
        self._floor_ms = terms.floor_ms
        self._warned = False
        self._report = report
        self._bucket = TokenBucket.full(rate=FRAMES_PER_S, burst=FRAME_BURST, now=now)
        self._refused_in_a_row = 0
        self.state = State.OPEN

    def open(self, *, asked: Sequence[str], interval_ms: int, now: float) -> None:
        """Send `welcome`, and subscribe to what the URL asked for, else to the exact channels of the token."""
        if self.state is State.CLOSED:
            self._report(Action.CONNECT_ACCEPTED, (), None)
            return
        terms = self._terms
        welcome = messages.welcome(
            connection=terms.connection,
            ts=_ms(now),
            expires_at=_ms(self._expires_at),
            frames_per_s=FRAMES_PER_S,
        )
        channels = list(asked) or [name for name in terms.scope.patterns if not is_wildcard(name)]
        if not channels:
            self._report(Action.CONNECT_ACCEPTED, (), None)
            self._send(welcome)
            self._send(
                messages.error(
                    code="nothing_subscribed",
                    message="No channel was named in the URL, and the token names patterns only: send a subscribe.",
                    retryable=False,
                )
            )
            return
        frame = messages.Subscribe(channels=channels, interval_ms=interval_ms)
        self._subscribe(frame, now=now, after=[welcome], action=Action.CONNECT_ACCEPTED)

    def receive(self, text: str, now: float) -> Close | RefreshRequest | None:
        """Handle one text frame. A `Close` says how to end the connection; nothing is written after it."""
        if self.state is State.CLOSED:
            return None
        if wait := self._bucket.take(now):
            return self._too_fast(wait)
        self._refused_in_a_row = 0
        try:
            frame = messages.parse_client_frame(text)
        except MalformedError:
            return self.close(Reason.FRAME_MALFORMED)
        match frame:
            case messages.Subscribe():
                self._subscribe(frame, now=now)
            case messages.Unsubscribe():
                patterns = self._subscriber.patterns.keys() & frame.channels
                self._charge(sum(map(self._hub.match_count, patterns)), now)
                done = self._hub.unsubscribe(self._subscriber, frame.channels)
                self._send(messages.unsubscribed(id=frame.id, channels=done))
            case messages.Ping():
                self._send(messages.pong(id=frame.id, ts=_ms(now)))
            case messages.Refresh():
                return RefreshRequest(frame.token, frame.id)
            case messages.Auth():
                return self.close(Reason.FRAME_MALFORMED)
            case messages.Unknown():
                self._send(
                    messages.error(
                        id=frame.id,
                        code="unknown_type",
                        message=f"{messages.PROTOCOL} has no {frame.type[:40]!r} for clients to send.",
                        retryable=False,
                    )
                )
        return None

    def control_frame(self, now: float) -> Close | None:
        """Count a ping or pong of the WebSocket layer; they cost as much as a message."""
        if self.state is State.CLOSED:
            return None
        if wait := self._bucket.take(now):
            return self._too_fast(wait)
        self._refused_in_a_row = 0
        return None

    def next_deadline(self) -> float:
        """Return when `tick` wants to be called, in Unix seconds."""
        return self._expires_at if self._warned else self._expires_at - WARN_BEFORE_S

    def tick(self, now: float) -> Close | None:
        """Do what is due at `now`: warn that the connection's time is nearly over, or end it."""
        if self.state is State.CLOSED:
            return None
        if now >= self._expires_at:
            return self.close(Reason.CONNECTION_EXPIRED)
        if not self._warned and now >= self._expires_at - WARN_BEFORE_S:
            self._warned = True
            self._send(messages.token_expiring(expires_in_ms=_ms(self._expires_at - now)))
        return None

    def refreshed(self, asked: RefreshRequest, *, scope: Scope, expires_at: float, floor_ms: int) -> None:
        """Go on with a new token. It can only take away: what falls out of its scope is unsubscribed with a frame, and
        what comes faster than it allows is slowed down.
        """
        if self.state is State.CLOSED:
            return
        self._scope = self._scope.intersect(scope)
        self._expires_at, self._warned = expires_at, False
        subscriber = self._subscriber
        fallen = [name for name in (*subscriber.exact, *subscriber.patterns) if not self._scope.allows(name)]
        if fallen:
            done = self._hub.unsubscribe(subscriber, fallen)
            self._send(messages.unsubscribed(id=None, channels=done))
        self._send(messages.refreshed(id=asked.id, expires_at=_ms(expires_at)))
        self._floor_ms = max(self._floor_ms, floor_ms)
        intervals = {**subscriber.exact, **subscriber.patterns}
        requests = [
            SubscribeRequest(name=name, interval_ms=granted_interval(interval_ms, self._floor_ms))
            for name, interval_ms in intervals.items()
        ]
        slower = [request for request in requests if request.interval_ms != intervals[request.name]]
        self._hub.subscribe(subscriber, slower)

    def refresh_refused(self, asked: RefreshRequest, *, reason: Reason) -> None:
        """Say that a new token was refused; the connection lives on to its old end."""
        if self.state is State.CLOSED:
            return
        answer = answer_for(reason)
        self._send(
            messages.error(id=asked.id, code=answer.code, message=answer.message, retryable=answer.retryable)
        )

    def announce_restart(self, *, delay_ms: int) -> None:
        """Tell the client that the relay is about to restart, and when to come back."""
        if self.state is State.OPEN:
            self._send(messages.reconnect(delay_ms=delay_ms))

    def close(self, reason: Reason) -> Close:
        """Stop taking and sending anything, and say how to end the connection."""
        self.state = State.CLOSED
        self._hub.leave(self._subscriber)
        return close_for(reason)

    # inside

    def _send(self, message: bytes) -> None:
        self._hub.send(self._subscriber, message)

    def _too_fast(self, wait: float) -> Close | None:
        self._refused_in_a_row += 1
        if self._refused_in_a_row > FRAME_BURST:
            return self.close(Reason.FRAMES_TOO_FAST)
        self._send(
            messages.error(
                code="rate_limited",
                message=f"At most {FRAMES_PER_S} frames a second; this one was not looked at.",
                retryable=True,
                retry_after_ms=int(wait * 1000) + 1,
            )
        )
        return None

    def _subscribe(
        self,
        frame: messages.Subscribe,
        *,
        now: float,
        after: Sequence[bytes] = (),
        action: Action = Action.SUBSCRIBE_ACCEPTED,
    ) -> None:
        """Acknowledge first, then let the hub send the snapshots: no data may come before its ack."""
        accepted, rejected = self._sort(frame.channels)
        interval_ms = granted_interval(frame.interval_ms, self._floor_ms)
        since = {name: (at.epoch, at.seq) for name, at in frame.since.items()}
        requests = [
            SubscribeRequest(name=name, interval_ms=interval_ms, since=since.get(name)) for name in accepted
        ]
        # decided before the ack, sent after it
        acks = [self._ack(request) for request in requests]
        self._charge(sum(ack.matches for ack in acks if isinstance(ack, messages.PatternAck)), now)
        ack = messages.subscribed(id=frame.id, channels=acks, rejected=rejected)
        self._hub.subscribe(self._subscriber, requests, after=[*after, ack])
        if accepted or action is Action.CONNECT_ACCEPTED:
            self._report(action, accepted, None)
        for code, reason in _REPORTED.items():
            if names := [item.channel for item in rejected if item.code == code]:
                self._report(Action.SUBSCRIBE_DENIED, names, reason)

    def _charge(self, matched: int, now: float) -> None:
        """Count what patterns cost that match so many channels."""
        if matched:
            self._bucket.charge(now, matched / MATCHES_A_FRAME)

    def _sort(self, names: Sequence[str]) -> tuple[list[str], list[messages.Rejection]]:
        room = (
            messages.MAX_CHANNELS_A_CONNECTION - len(self._subscriber.exact) - len(self._subscriber.patterns)
        )
        accepted: dict[str, None] = {}
        rejected: list[messages.Rejection] = []
        for name in dict.fromkeys(names[: messages.MAX_CHANNELS_A_FRAME]):
            if not is_pattern(name):
                rejected.append(_reject(name, "malformed", "This is not a channel or pattern."))
            elif not self._scope.allows(name):
                rejected.append(_reject(name, "forbidden", "This lies outside the token's scope."))
            elif name in self._subscriber.exact or name in self._subscriber.patterns:
                accepted[name] = None
            elif room <= 0:
                rejected.append(
                    _reject(
                        name,
                        "too_many_channels",
                        f"A connection has at most {messages.MAX_CHANNELS_A_CONNECTION} subscriptions.",
                    )
                )
            else:
                accepted[name] = None
                room -= 1
        if len(names) > messages.MAX_CHANNELS_A_FRAME:
            left = len(names) - messages.MAX_CHANNELS_A_FRAME
            rejected.append(
                _reject(
                    names[messages.MAX_CHANNELS_A_FRAME],
                    "too_many_channels",
                    f"A frame names at most {messages.MAX_CHANNELS_A_FRAME} channels; "
                    f"this one and what follows ({left} in all) were left out.",
                )
            )
        return list(accepted), rejected

    def _ack(self, request: SubscribeRequest) -> messages.ChannelAck | messages.PatternAck:
        state = self._hub.acked_state(request.name, request.since)
        # every message of a stream channel comes at once
        interval_ms = 0 if state.mode is messages.Mode.STREAM else request.interval_ms
        if is_wildcard(request.name):
            return messages.PatternAck(
                channel=request.name,
                mode=state.mode,
                interval_ms=interval_ms,
                matches=self._hub.match_count(request.name),
            )
        return messages.ChannelAck(
            channel=request.name,
            mode=state.mode,
            interval_ms=interval_ms,
            epoch=state.epoch,
            seq=state.seq,
            state="stale" if state.stale else "live",
            recovered=state.recovered,
        )


_REPORTED: dict[messages.RejectionCode, Reason] = {
    "forbidden": Reason.CHANNEL_FORBIDDEN,
    "malformed": Reason.REQUEST_MALFORMED,
    "too_many_channels": Reason.CHANNELS_TOO_MANY,
}


def _reject(name: str, code: messages.RejectionCode, message: str) -> messages.Rejection:
    # the name comes from outside and goes back out: as much of it as a channel may have
    return messages.Rejection(channel=name[:64], code=code, message=message)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
