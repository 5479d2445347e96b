"""Random schedules of trades, cuts, losses and restarts: the client's memory against the relay's own core.

No socket and no clock: the relay's state machine and hub at one end, the client's queue at the other, and a wire
between them that a schedule may cut or damage.
"""

import json
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.client.event_queue import EventQueue
from relay.client.events import Gap
from relay.client.frames import Problem, Snapshot, Subscribed, Unsubscribed, Update, parse_server_frame
from relay.client.subscriptions import DesiredSubscriptions, SubscriptionRequest
from relay.core.channels import ChannelOptions
from relay.core.hub import Hub
from relay.core.messages import Mode
from tests.support.hub import publication
from tests.support.protocol_client import ProtocolConnection

CHANNELS = ("trades.A", "trades.B")
HISTORY = 5


class World:
    """A relay, a wire, and a client that writes down what it was handed."""

    def __init__(self, wish: str, scope: str) -> None:
        self._scope = scope
        self._desired = DesiredSubscriptions()
        self._desired.add([wish], 0)
        self._queue = EventQueue(self._desired, None)
        self._published = dict.fromkeys(CHANNELS, 0)
        self._starts = 0
        self.story: dict[str, list[int | str]] = {channel: [] for channel in CHANNELS}
        self.restart()

    def restart(self) -> None:
        """Start a relay without a memory."""
        self._starts += 1
        self._seqs = dict.fromkeys(CHANNELS, 0)
        self._hub = Hub(
            wake=lambda: None,
            wake_interval=lambda _: None,
            options=lambda _: ChannelOptions(mode=Mode.STREAM, history_messages=HISTORY, history_ms=1 << 50),
        )
        self.connect()

    def connect(self) -> None:
        """Open a connection, as the subscriber does."""
        self._queue.lost(0.0)
        query, asked = self._desired.query(self._queue.positions.resumable())
        self._asks = deque(self._queue.resume(self._desired.missing(asked), again=not query))
        self._sent: dict[int, SubscriptionRequest] = {}
        self._talk = ProtocolConnection(self._scope, hub=self._hub)
        self._talk.client.open(channels=list(asked), interval_ms=0, now=self._talk.now)

    def publish(self, channel: str) -> None:
        """Publish the channel's next number."""
        self._published[channel] += 1
        self._seqs[channel] += 1
        epoch = f"e{self._starts}"
        self._hub.publish(publication(channel, self._seqs[channel], epoch, self._published[channel]))

    def carry(self, *, losing: int | None = None) -> None:
        """Carry frames both ways until there are none; the value with number `losing` gets lost."""
        values = 0
        while True:
            while self._hub.flush(100):
                pass
            frames = self._talk.line.frames()
            if not frames and not self._asks:
                return
            for frame in frames:
                if frame["type"] == "update":
                    values += 1
                    if values - 1 == losing:
                        continue
                self._receive(json.dumps(frame))
            while self._asks:
                ask = self._asks.popleft()
                id = len(self._sent) + 1
                self._sent[id] = ask
                self._talk.wait(1)
                text = json.dumps({"id": id} | ask.members())
                assert self._talk.client.receive(text, self._talk.now) is None

    def _receive(self, text: str) -> None:
        frame = parse_server_frame(text)
        match frame:
            case Snapshot() | Update():
                self._asks += self._queue.value(frame, 0.0)
            case Subscribed():
                self._queue.subscribed(frame, None if frame.id is None else self._sent.get(frame.id), 0.0)
            case Problem():
                assert frame.code == "nothing_subscribed"
            case Unsubscribed() | _:
                pass
        while (event := self._queue.next(0.0)) is not None:
            if isinstance(event, Snapshot | Update):
                self.story[event.channel].append(event.data)
            elif isinstance(event, Gap):
                self.story[event.channel].append("gap")

    def check(self, channel: str) -> None:
        """Every message once and in order, with a gap where some are missing; and nothing held back at the end."""
        last: int | None = None
        is_gap = False
        for item in self.story[channel]:
            if isinstance(item, str):
                is_gap = True
                continue
            assert last is None or item == last + 1 or (is_gap and item > last), self.story[channel]
            last, is_gap = item, False
        if last is not None:
            assert last == self._published[channel]


STEP = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(CHANNELS)),
    st.tuples(st.just("carry"), st.none() | st.integers(0, 3)),
    st.tuples(st.sampled_from(["connect", "restart"]), st.none()),
)
NAMES = [("trades.*", "trades.>"), ("trades.A", "trades.>"), ("trades.A", "trades.A")]


@settings(deadline=None, max_examples=200)
@given(names=st.sampled_from(NAMES), steps=st.lists(STEP, max_size=60))
def test_every_trade_comes_once_or_is_in_a_gap(
    names: tuple[str, str], steps: list[tuple[str, str | int | None]]
) -> None:
    """Whatever is cut, lost in between, or forgotten by a restart; by name or by pattern."""
    world = World(*names)
    for step, detail in steps:
        match step, detail:
            case "publish", str():
                world.publish(detail)
            case "carry", int() | None:
                world.carry(losing=detail)
            case "connect", _:
                world.connect()
            case _:
                world.restart()
    for channel in CHANNELS:  # what comes last shows what is missing before it
        world.publish(channel)
    world.carry()
    for channel in CHANNELS:
        world.check(channel)


@settings(deadline=None)
@given(
    names=st.sampled_from(NAMES),
    turns=st.lists(
        st.tuples(st.lists(st.sampled_from(CHANNELS), max_size=HISTORY), st.booleans(), st.booleans()),
        max_size=20,
    ),
)
def test_messages_within_the_history_are_never_a_gap(
    names: tuple[str, str], turns: list[tuple[list[str], bool, bool]]
) -> None:
    """However often the link is cut: as long as the relay still has what was missed, nothing is called lost."""
    world = World(*names)
    for channel in CHANNELS:
        world.publish(channel)
    world.carry()
    for channels, is_cut, is_jump in turns:
        for channel in channels:
            world.publish(channel)
        if is_cut:
            world.connect()
        world.carry(losing=0 if is_jump and len(set(channels)) < len(channels) == 2 else None)
    for channel in CHANNELS:
        story = world.story[channel]
        assert story == list(range(1, len(story) + 1))
        world.check(channel)
    assert world.story["trades.A"]
