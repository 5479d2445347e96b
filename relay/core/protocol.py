"""The relay's side of one relay.v1 connection, as a state machine without I/O.

The shell passes in text frames and the time, and asks when `tick` must be called. The state machine writes
through the hub. It returns a `Close` when the connection has to end. What happens to the frames of a client:

    state     auth        refresh          subscribe                unsubscribe, ping  unknown type  not a message
    OPEN      close 1008  RefreshRequest   answered, or             answered           error frame   close 1008
                                           HistoryRequest
    CLOSED    ignored     ignored          ignored                  ignored            ignored       ignored

Some frames need an answer from outside, which the shell must wait for. They are returned as requests. The shell calls
back with the answer before it passes in the next frame:

- `RefreshRequest`: the new token must be checked and used up in the state store. Then `refreshed` or `refresh_refused`.
- `HistoryRequest`: a channel is resumed from further back than the hub remembers. Then `subscribe_with_history`.

`auth` is allowed as the first frame only. The shell handles it before this state machine exists.

Times are seconds on one clock that never goes back, which the shell passes in as `now`. Frames carry Unix milliseconds:
`unix_lead` returns what to add to `now` for them, because the wall clock can be set at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from relay.core import messages
from relay.core.channels import AckedState, granted_interval
from relay.core.closes import Close, answer_for, close_for
from relay.core.errors import MalformedError, Reason
from relay.core.events import Action
from relay.core.hub import Hub
from relay.core.patterns import is_pattern, is_wildcard
from relay.core.positions import ResumePoint
from relay.core.publications import Publication
from relay.core.scope import Scope
from relay.core.subscribers import Subscriber
from relay.core.subscriptions import SubscribeRequest
from relay.core.token_bucket import TokenBucket

FRAMES_PER_S = 10
FRAME_BURST = 20
"""A page that subscribes a screen of widgets one by one sends some dozens of frames. Binance allows 5 a second."""
MATCHES_A_FRAME = 500
"""Matched channels of a subscription's patterns that cost as much as one more frame: about a millisecond of the event
loop. This may go below zero: one large pattern is always accepted, and the next frames have to wait for it."""
MISSED_A_FRAME = 2500
"""Missed messages of resumed channels that cost as much as one more frame, which is about a millisecond too. A client
that missed 100 messages on each of 256 channels pays ten frames. One that asks for 256,000 waits ten seconds."""
WARN_BEFORE_S = 60
"""Seconds before its end at which a connection is warned. A new token takes one request, and a few retries."""
LATE_WARNING_S = 5
"""Seconds that a connection gets if its end has come before its warning: its session ends in the same second, or the
relay stood still for a minute."""


class State(Enum):
    """Whether the connection still accepts frames."""

    OPEN = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one connection may do, as its token and its endpoint allow.

    `expires_at` is on the clock of `now`. `floor_ms` is the shortest flush interval.
    """

    connection: str
    scope: Scope
    expires_at: float
    floor_ms: int = 0


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """The client sent a new token. Check it, then call `refreshed` or `refresh_refused`."""

    token: str = field(repr=False)
    id: int | None


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """The client resumes channels from further back than the hub's history reaches.

    `since` says for each of them which message the client has last. Ask the broker for the messages after it, then
    call `subscribe_with_history`.
    """

    frame: messages.Subscribe
    since: Mapping[str, messages.Since]


_NO_HISTORIES: Mapping[str, Sequence[Publication]] = {}
_NOWHERE: Mapping[str, messages.Since] = {}

Report = Callable[[Action, Sequence[str], Reason | None], None]
"""Called for the audit log: the action, its channels, and the reason if it was refused.

The first call of each connection is `CONNECT_ACCEPTED`, with the channels that it subscribes to as it opens. This is
one record and not two, because nearly all connections subscribe once, in their URL.
"""


class ClientProtocol:
    """The relay's side of one connection, from its acceptance to its end."""

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
        "_unix_lead",
        "_warned",
        "state",
    )

    def __init__(
        self,
        *,
        hub: Hub,
        subscriber: Subscriber,
        terms: Terms,
        report: Report,
        now: float,
        unix_lead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._terms = terms
        self._scope = terms.scope
        self._expires_at = terms.expires_at
        self._floor_ms = terms.floor_ms
        self._warned = False
        self._report = report
        self._unix_lead = unix_lead
        self._bucket = TokenBucket.full(rate=FRAMES_PER_S, burst=FRAME_BURST, now=now)
        self._refused_in_a_row = 0
        self.state = State.OPEN

    def missing_history(
        self, channels: Sequence[str], since: Mapping[str, messages.Since]
    ) -> HistoryRequest | None:
        """Return what must be asked of the broker before `open` with the same `channels` and `since`, or None."""
        if not since:
            return None
        frame = messages.Subscribe(channels=self._first_names(channels), since=dict(since))
        missing = self._missing_history(frame)
        return HistoryRequest(frame, missing) if missing else None

    def open(
        self,
        *,
        channels: Sequence[str],
        interval_ms: int,
        now: float,
        since: Mapping[str, messages.Since] = _NOWHERE,
        histories: Mapping[str, Sequence[Publication]] = _NO_HISTORIES,
        resume: ResumePoint | None = None,
    ) -> None:
        """Send `welcome`, and subscribe to the URL's `channels`. Without any: to the token's exact channels.

        `since` says where channels are resumed, and `histories` is the broker's answer to `missing_history`. `resume`
        says it for all channels and counts first.
        """
        if self.state is State.CLOSED:
            self._report(Action.CONNECT_ACCEPTED, (), None)
            return
        terms = self._terms
        welcome = messages.welcome(
            connection=terms.connection,
            ts=self._unix_ms(now),
            expires_at=self._unix_ms(self._expires_at),
            frames_per_s=FRAMES_PER_S,
        )
        names = self._first_names(channels)
        if not names:
            self._report(Action.CONNECT_ACCEPTED, (), None)
            self._send(welcome)
            self._send(
                messages.error(
                    code="nothing_subscribed",
                    message="The token has patterns only. Name channels in the URL, or send a subscribe frame.",
                    retryable=False,
                )
            )
            return
        frame = messages.Subscribe(channels=names, interval_ms=interval_ms, since=dict(since))
        self._subscribe(
            frame,
            now=now,
            after=[welcome],
            action=Action.CONNECT_ACCEPTED,
            histories=histories,
            resume=resume,
        )

    def _first_names(self, channels: Sequence[str]) -> list[str]:
        return list(channels) or [name for name in self._terms.scope.patterns if not is_wildcard(name)]

    def receive(self, text: str, now: float) -> Close | RefreshRequest | HistoryRequest | None:
        """Handle one text frame. After a `Close` the shell must end the connection; nothing is written any more."""
        if self.state is State.CLOSED:
            return None
        if wait := self._bucket.acquire(now):
            return self._too_fast(wait)
        self._refused_in_a_row = 0
        try:
            frame = messages.parse_client_frame(text)
        except MalformedError:
            return self.close(Reason.FRAME_MALFORMED)
        match frame:
            case messages.Subscribe():
                if since := self._missing_history(frame):
                    return HistoryRequest(frame, since)
                self._subscribe(frame, now=now)
            case messages.Unsubscribe():
                patterns = self._subscriber.patterns.keys() & frame.channels
                self._charge(sum(map(self._hub.match_count, patterns)), now)
                removed = self._hub.unsubscribe(self._subscriber, frame.channels)
                self._send(messages.unsubscribed(id=frame.id, channels=removed))
            case messages.Ping():
                self._send(messages.pong(id=frame.id, ts=self._unix_ms(now)))
            case messages.Refresh():
                return RefreshRequest(frame.token, frame.id)
            case messages.Auth():
                return self.close(Reason.FRAME_MALFORMED)
            case messages.Unknown():
                self._send(
                    messages.error(
                        id=frame.id,
                        code="unknown_type",
                        message=f"{messages.PROTOCOL} has no frame type {frame.type[:40]!r} for clients.",
                        retryable=False,
                    )
                )
        return None

    def control_frame(self, now: float) -> Close | None:
        """Count a ping or pong of the WebSocket layer. It costs as much as a message."""
        if self.state is State.CLOSED:
            return None
        if wait := self._bucket.acquire(now):
            return self._too_fast(wait)
        self._refused_in_a_row = 0
        return None

    def next_deadline(self) -> float:
        """Return when `tick` must be called, on the clock of `now`."""
        return self._expires_at if self._warned else self._expires_at - WARN_BEFORE_S

    def tick(self, now: float) -> Close | None:
        """Do what is due at `now`: warn the client that the connection is about to expire, or end it.

        No connection ends without a warning.
        """
        if self.state is State.CLOSED:
            return None
        if now >= self._expires_at:
            if self._warned:
                return self.close(Reason.CONNECTION_EXPIRED)
            self._expires_at = now + LATE_WARNING_S
        if not self._warned and now >= self._expires_at - WARN_BEFORE_S:
            self._warned = True
            self._send(messages.token_expiring(expires_in_ms=_ms(self._expires_at - now)))
        return None

    def refreshed(self, request: RefreshRequest, *, scope: Scope, expires_at: float, floor_ms: int) -> None:
        """Continue with a new token. A new token never adds rights to a connection.

        Channels outside its scope are unsubscribed, and the client is told with a frame. Subscriptions with a shorter
        interval than it allows get a longer one.
        """
        if self.state is State.CLOSED:
            return
        self._scope = self._scope.intersect(scope)
        self._expires_at, self._warned = expires_at, False
        subscriber = self._subscriber
        outside = [name for name in (*subscriber.exact, *subscriber.patterns) if not self._scope.allows(name)]
        if outside:
            removed = self._hub.unsubscribe(subscriber, outside)
            self._send(messages.unsubscribed(id=None, channels=removed))
        self._send(messages.refreshed(id=request.id, expires_at=self._unix_ms(expires_at)))
        self._floor_ms = max(self._floor_ms, floor_ms)
        intervals = {**subscriber.exact, **subscriber.patterns}
        requests = [
            SubscribeRequest(name=name, interval_ms=granted_interval(interval_ms, self._floor_ms))
            for name, interval_ms in intervals.items()
        ]
        slower = [request for request in requests if request.interval_ms != intervals[request.name]]
        self._hub.subscribe(subscriber, slower)

    def refresh_refused(self, request: RefreshRequest, *, reason: Reason) -> None:
        """Tell the client that its new token was refused. The connection keeps its old token and its old end."""
        if self.state is State.CLOSED:
            return
        answer = answer_for(reason)
        self._send(
            messages.error(
                id=request.id, code=answer.code, message=answer.message, retryable=answer.retryable
            )
        )

    def subscribe_with_history(
        self, request: HistoryRequest, histories: Mapping[str, Sequence[Publication]], now: float
    ) -> None:
        """Handle the `subscribe` of a `HistoryRequest`, with the broker's answers by channel.

        A channel that is missing in `histories` begins with a snapshot.
        """
        if self.state is State.OPEN:
            self._subscribe(request.frame, now=now, histories=histories)

    def announce_restart(self, *, delay_ms: int) -> None:
        """Tell the client that the relay is about to restart, and when to reconnect."""
        if self.state is State.OPEN:
            self._send(messages.reconnect(delay_ms=delay_ms))

    def close(self, reason: Reason) -> Close:
        """Stop accepting and sending frames, and return how the connection must be ended."""
        self.state = State.CLOSED
        self._hub.leave(self._subscriber)
        return close_for(reason)

    # inside

    def _unix_ms(self, at: float) -> int:
        return _ms(at + self._unix_lead())

    def _send(self, message: bytes) -> None:
        self._hub.send(self._subscriber, message)

    def _too_fast(self, wait: float) -> Close | None:
        self._refused_in_a_row += 1
        if self._refused_in_a_row > FRAME_BURST:
            return self.close(Reason.FRAMES_TOO_FAST)
        self._send(
            messages.error(
                code="rate_limited",
                message=f"The limit is {FRAMES_PER_S} frames a second. This frame was ignored.",
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
        histories: Mapping[str, Sequence[Publication]] = _NO_HISTORIES,
        resume: ResumePoint | None = None,
    ) -> None:
        """Subscribe. The acknowledgement goes first: no data may come before it."""
        accepted, rejected = self._check_names(frame.channels)
        interval_ms = granted_interval(frame.interval_ms, self._floor_ms)
        since = {name: (at.epoch, at.seq) for name, at in frame.since.items()}
        requests = [
            SubscribeRequest(
                name=name,
                interval_ms=interval_ms,
                since=since.get(name),
                from_broker=histories.get(name, ()),
                after=resume,
            )
            for name in accepted
        ]
        # The acknowledgement describes the state that the hub then sends: nothing may happen in between.
        states = [self._hub.acked_state(request) for request in requests]
        acks = [self._ack(request, state) for request, state in zip(requests, states, strict=True)]
        matched = sum(ack.matches for ack in acks if isinstance(ack, messages.PatternAck))
        self._charge(matched, now, missed=sum(state.missed for state in states))
        ack = messages.subscribed(id=frame.id, channels=acks, rejected=rejected)
        # the same names again are no event: a client could fill the log with them
        known = self._subscriber.exact.keys() | self._subscriber.patterns.keys()
        new = [name for name in accepted if name not in known]
        self._hub.subscribe(self._subscriber, requests, after=[*after, ack])
        if new or action is Action.CONNECT_ACCEPTED:
            self._report(action, new, None)
        for code, reason in _REPORTED.items():
            if names := [item.channel for item in rejected if item.code == code]:
                self._report(Action.SUBSCRIBE_DENIED, names, reason)

    def _missing_history(self, frame: messages.Subscribe) -> dict[str, messages.Since]:
        """Return the channels that are resumed from further back than the hub's history reaches."""
        names = set(frame.channels[: messages.MAX_CHANNELS_A_FRAME])
        return {
            name: since
            for name, since in frame.since.items()
            if name in names
            and self._scope.allows(name)
            and self._hub.lacks_history(name, since.epoch, since.seq)
        }

    def _charge(self, matched: int, now: float, *, missed: int = 0) -> None:
        """Charge the frame rate for patterns that match so many channels, and for so many missed messages."""
        if matched or missed:
            self._bucket.charge(now, matched / MATCHES_A_FRAME + missed / MISSED_A_FRAME)

    def _check_names(self, names: Sequence[str]) -> tuple[list[str], list[messages.Rejection]]:
        """Split `names` into those that may be subscribed and those that are rejected."""
        room = (
            messages.MAX_CHANNELS_A_CONNECTION - len(self._subscriber.exact) - len(self._subscriber.patterns)
        )
        accepted: dict[str, None] = {}
        rejected: list[messages.Rejection] = []
        for name in dict.fromkeys(names[: messages.MAX_CHANNELS_A_FRAME]):
            if not is_pattern(name):
                rejected.append(_reject(name, "malformed", "This is not a channel name or pattern."))
            elif not self._scope.allows(name):
                rejected.append(_reject(name, "forbidden", "This is outside the token's scope."))
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
                    f"A frame may name {messages.MAX_CHANNELS_A_FRAME} channels. "
                    f"This one and all after it ({left} in all) were ignored.",
                )
            )
        return list(accepted), rejected

    def _ack(self, request: SubscribeRequest, state: AckedState) -> messages.ChannelAck | messages.PatternAck:
        # Stream channels have no interval: each of their messages is sent at once.
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
    # The client chose the name, and it goes back to the client: not longer than a channel name may be.
    return messages.Rejection(channel=name[:64], code=code, message=message)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
