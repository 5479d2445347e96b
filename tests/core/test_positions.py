"""One id resumes all stream channels of a client, wherever its line was cut."""

import json
from random import Random

import pytest

from relay.core.catch_up import CATCH_UP_MS
from relay.core.channels import ChannelOptions, IdEncoder
from relay.core.hub import Hub
from relay.core.liveness import BEATS_PER_HEARTBEAT
from relay.core.messages import Mode
from relay.core.positions import Positions, ResumePoint
from relay.core.publications import Publication
from relay.core.subscriptions import SubscribeRequest
from tests.support.hub import ENDLESS, Line, joined, line_frame, make_hub, publication

CHANNELS = ["s.a", "s.b", "s.c", "s.d"]


class Events(IdEncoder):
    """Events with ids, as `relay.stream.sse` makes them."""

    def __call__(self, message: bytes) -> bytes:
        return b"data: %b\n\n" % message

    def with_id(self, position: bytes, frame: bytes = b"") -> bytes:
        return b"id: %b\n%b" % (position, frame or b"\n")


EVENTS = Events()


class Node:
    """A hub, and a caller that does what is due. One seed decides when."""

    def __init__(self, dice: Random, generation: str, history: int) -> None:
        self.dice = dice
        self.due: set[int] = set()
        options = ChannelOptions(mode=Mode.STREAM, history_messages=history, history_ms=1 << 50)
        self.hub = Hub(
            wake=lambda: self.due.add(0),
            wake_interval=self.due.add,
            options=lambda _: options,
            generation=generation,
        )

    def step(self) -> None:
        """Flush a part, write the next slices, or send heartbeats."""
        due = self.dice.choice(sorted(self.due)) if self.due else -1
        if due == 0 and not self.hub.flush(self.dice.randint(1, 2)):
            self.due.discard(0)
        elif due == CATCH_UP_MS:
            self.due.discard(due)
            if self.hub.flush_interval(due):
                self.due.add(due)
        elif self.dice.random() < 0.2:
            list(self.hub.beat(now_ms=0))

    def rest(self) -> None:
        """Do all that is due."""
        while self.due:
            self.step()


class Browser:
    """A page with an EventSource, whose line is cut at any byte. It checks what it gets."""

    def __init__(self, log: dict[str, list[Publication]], names: list[str], dice: Random) -> None:
        self.log, self.names, self.dice = log, names, dice
        self.last_id = ""
        self.at: dict[str, int] = {}  # channel -> index in the log of the message that came last
        self.resumed = 0
        self.is_exact = True  # the last id covers all that came
        self.line = Line()

    def connect(self, node: Node) -> None:
        """Begin with the last id."""
        self.node = node
        point = node.hub.positions.resume(self.last_id)
        requests = [SubscribeRequest(name=name, after=point) for name in self.names]
        self.told = {one.name: node.hub.acked_state(one).recovered for one in requests}
        self.line = Line(self.dice.choice([300, 3000, ENDLESS, ENDLESS]), EVENTS)
        self.subscriber = node.hub.join(self.line, EVENTS)
        node.hub.subscribe(self.subscriber, requests, after=[b'{"type":"subscribed"}'])
        self.resumed += list(self.told.values()).count(True)

    def read(self) -> None:
        """Let the kernel take more."""
        if self.line.waiting:
            self.line.take(self.dice.choice([50, 500, 5000]))
            if not self.line.waiting:
                self.node.hub.drained(self.subscriber)

    def cut(self) -> None:
        """Lose the line. What came is all up to some byte of the last thousand."""
        self.node.hub.leave(self.subscriber)
        came = b"".join(self.line.writes)
        came = came[: len(came) - self.line.waiting]
        lost = self.dice.randint(0, min(len(came), 1000)) if self.dice.random() < 0.8 else 0
        self.take(came[: len(came) - lost])

    def take(self, came: bytes) -> None:
        """Check each event. What came before a connection's first id, such as a part of a replay, may come again."""
        has_id, is_exact = False, self.is_exact
        for block in came.split(b"\n\n")[:-1]:
            for line in block.splitlines():
                name, _, value = line.decode().partition(": ")
                if name == "id":
                    self.last_id, has_id = value, True
                    self.is_exact = True
                    continue
                frame = json.loads(value)
                if frame["type"] in ("update", "snapshot"):
                    self.check(frame["channel"], frame["data"], frame["type"], is_exact=has_id or is_exact)
                    self.is_exact = has_id

    def check(self, channel: str, index: int, kind: str, *, is_exact: bool) -> None:
        before = self.at.get(channel)
        if before is None or (kind == "snapshot" and not self.told.get(channel, False)):
            self.told[channel] = True  # what it missed before the snapshot it was told of
        elif is_exact:
            assert index == before + 1, (channel, before, index)
        else:
            assert index <= before + 1, (channel, before, index)
        self.at[channel] = max(index, -1 if before is None else before)


@pytest.mark.parametrize("seed", range(60))
def test_a_line_that_is_cut_anywhere_loses_and_repeats_nothing(seed: int) -> None:
    """All channels go on after the last message that came whole, or the client is told of the gap.

    Only what came of a replay comes again, if the line is cut before its end.
    """
    dice = Random(seed)
    node = Node(dice, "g", history=dice.choice([5, 40, 1000]))
    log: dict[str, list[Publication]] = {name: [] for name in CHANNELS}
    epoch = "e1"
    browsers = [
        Browser(log, dice.sample([*CHANNELS, "s.*"], dice.randint(1, 4)), dice)
        for _ in range(dice.randint(1, 3))
    ]
    if dice.random() < 0.5:
        joined(node.hub, CHANNELS, encode=line_frame)
    for browser in browsers:
        browser.connect(node)
    for number in range(250):
        for name in dice.choices(CHANNELS, k=dice.randint(0, 3)):
            seq = len([one for one in log[name] if one.epoch == epoch]) + 1
            value = publication(name, seq, epoch, data=len(log[name]), ts=number)
            log[name].append(value)
            node.hub.publish(value)
        if dice.random() < 0.003:
            epoch += "x"
        node.step()
        browser = dice.choice(browsers)
        browser.read()
        if dice.random() < 0.05 or browser.line.overflown:
            browser.cut()
            for _ in range(dice.randint(0, 2)):
                node.step()
            browser.connect(node)
    is_short = node.hub.channels()[0].options.history_messages == 5
    assert is_short or any(browser.resumed for browser in browsers) or {*browsers[0].names} == {"s.*"}


def filled(node: Node, count: int, name: str = "s.a", *, begin: int = 1, has_log: bool = False) -> None:
    """Publish messages one by one. With a log, each is an entry of its own."""
    for seq in range(begin, begin + count):
        entry = seq if has_log else 0
        node.hub.publish(Publication(channel=name, epoch="e1", seq=seq, ts=1, data=b"1", entry=entry))
        if has_log:
            node.hub.positions.delivered(entry, "e1")
        node.rest()


def last_id(line: Line) -> str:
    """Return the id that an EventSource would send."""
    text = b"".join(line.writes).decode()
    return [row.removeprefix("id: ") for row in text.splitlines() if row.startswith("id: ")][-1]


def test_a_quiet_connection_is_up_to_date() -> None:
    """It has an id as soon as it has its snapshots, and with each heartbeat. So nothing is called a gap."""
    node = Node(Random(1), "g", history=100)
    filled(node, 3)
    line, subscriber = joined(node.hub, ["s.a"], encode=EVENTS)
    first = last_id(line)
    filled(node, 2, "s.b")
    for _ in range(BEATS_PER_HEARTBEAT + 1):
        list(node.hub.beat(now_ms=0))
    assert last_id(line) != first
    for text, missed in ((first, 2), (last_id(line), 0)):
        point = node.hub.positions.resume(text)
        for name in ("s.a", "s.b"):
            state = node.hub.acked_state(SubscribeRequest(name=name, after=point))
            assert (state.recovered, state.missed) == (True, missed if name == "s.b" else 0)
    assert subscriber.backlog is None


def test_an_id_is_the_same_for_all_and_encoded_once() -> None:
    """The bytes that a flush writes are one object for all readers of a channel. Other transports get no ids."""
    node = Node(Random(1), "g", history=100)
    lines = [joined(node.hub, ["s.a"], encode=EVENTS)[0] for _ in range(3)]
    plain, _ = joined(node.hub, ["s.a"])
    filled(node, 1)
    written = [line.writes[-1] for line in lines]
    assert written[0] is written[1] is written[2]
    assert written[0].startswith(b"id: g-")
    assert b"id:" not in b"".join(plain.writes)


@pytest.mark.parametrize(
    "text",
    ["", "g", "g-", "g-x", "g-1-", "g-1-2", "G-1", "other-1", "g-99", "g-1-1-e1-x" * 9, "g-1\n", "g-٣", "-1"],
)
def test_an_id_that_says_nothing(text: str) -> None:
    """It is of another life of the hub, was never given, or is none: the channels begin with a snapshot."""
    node = Node(Random(1), "g", history=100)
    joined(node.hub, ["s.a"], encode=EVENTS)
    filled(node, 3)
    point = node.hub.positions.resume(text)
    assert point is None or point.number == 0
    assert not node.hub.acked_state(SubscribeRequest(name="s.a", after=point)).recovered


def test_another_node_goes_on_after_the_same_entry_of_the_log() -> None:
    """The numbers of two hubs differ. What the id's entry does not cover comes again at worst, and nothing is lost."""
    one, other = (Node(Random(1), name, history=100) for name in ("one", "other"))
    line, _ = joined(one.hub, ["s.a"], encode=EVENTS)
    joined(other.hub, ["s.z"], encode=EVENTS)
    filled(other, 4, has_log=True)
    filled(one, 4, has_log=True)
    point = other.hub.positions.resume(last_id(line))
    assert point == ResumePoint(0, {"e1": 3})
    filled(other, 2, begin=5, has_log=True)
    state = other.hub.acked_state(SubscribeRequest(name="s.a", after=point))
    assert (state.recovered, state.missed) == (True, 3)
    other.hub.publish(Publication(channel="s.new", epoch="e1", seq=1, ts=1, data=b"1", entry=7))
    state = other.hub.acked_state(SubscribeRequest(name="s.new", after=point))
    assert (state.recovered, state.missed) == (True, 1)
    elsewhere = ResumePoint(0, {"e0": 3})  # of an older epoch, in which the channel may have had messages
    assert not other.hub.acked_state(SubscribeRequest(name="s.new", after=elsewhere)).recovered
    late = Node(Random(1), "late", history=100)
    filled(late, 2, begin=5, has_log=True)  # it knows nothing of the first four
    assert not late.hub.acked_state(SubscribeRequest(name="s.a", after=point)).recovered


def test_ids_are_short_and_have_a_known_form() -> None:
    """They go into a header and into URLs as they are."""
    positions = Positions("abcd1234")
    positions.delivered(12, "x9_Ka-")
    assert positions.next() == (2, b"abcd1234-1")
    positions.flushed()
    assert positions.next() == (4, b"abcd1234-2-12-x9_Ka-")
    assert positions.newest() == b"abcd1234-3-12-x9_Ka-"
    assert positions.resume("abcd1234-3-12-x9_Ka-") == ResumePoint(6, {"x9_Ka-": 12})
    assert make_hub()[0].positions.resume("abcd1234-3-12-x9_Ka-") == ResumePoint(0, {"x9_Ka-": 12})


def test_an_id_names_an_entry_of_each_log() -> None:
    """An engine of several servers has several logs. Another node finds the one of a channel by the epoch."""
    positions = Positions("abcd1234")
    for log, entry, epoch in ((0, 12, "x9_Ka-"), (1, 7, "-b"), (0, 13, "x9_Ka-"), (1, 1, "c")):
        positions.delivered(entry, epoch, log=log)
    assert positions.newest() == b"abcd1234-1-13-x9_Ka-.1-c"
    point = make_hub()[0].positions.resume("abcd1234-1-13-x9_Ka-.1-c")
    assert point == ResumePoint(0, {"x9_Ka-": 13, "c": 1})
    assert point.is_of("c")
    assert not point.is_of("-b")
    assert positions.resume("abcd1234-1-13-x9_Ka-.") is None
