"""Counting without parsing: whatever the kernel cuts the bytes into, the figures are right."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from relay.bench.load.subscribers import Connection, Counted, Counter
from relay.bench.load.ticks import QUOTE, Tick, Ticks

TICKS = Ticks(run="0a1b2c3d", channels=["prices.A", "prices.B"])
TICK = TICKS.message(0, TICKS.value(Tick(0.0, 0, QUOTE)), 1)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Three connections: the server's end, and the load's."""
    made = [socket.socketpair() for _ in range(3)]
    for _, ours in made:
        ours.setblocking(False)
    yield made
    for pair in made:
        for end in pair:
            end.close()


def count(
    pairs: Sequence[Pair],
    *,
    hand: Sequence[int] = (0,),
    stream: bool = False,
    stall_s: float = 10.0,
    at_order: Callable[[], None] | None = None,
) -> Counted:
    """Count until the end; with `at_order` there is an order for a new window of latency, which calls that."""
    asked, order = os.pipe()
    if at_order is not None:
        os.write(order, b"w")

    def hear() -> None:
        os.read(asked, 1)
        assert at_order is not None
        at_order()

    counter = Counter(
        [[Connection(ours, hand, group=0) for _, ours in pairs]],
        TICKS,
        streams=frozenset([0]) if stream else frozenset(),
        stall_s=stall_s,
    )
    try:
        return counter.run(asked, hear)
    finally:
        counter.close()
        os.close(asked)
        os.close(order)


def trade(number: int) -> bytes:
    """Return one message of a stream."""
    return TICKS.message(0, TICKS.value(Tick(0.0, 0, QUOTE, number)), 1)


def end_of(count: int, *, channel: int = 0) -> bytes:
    """Return the end mark of a channel that had so many ticks."""
    return TICKS.message(channel, TICKS.end_value(channel, count), 2)


def test_everything_that_arrives_is_counted(pairs: list[Pair]) -> None:
    """Ticks on every connection, several in one read, make their number; nothing is missing."""
    for server, _ in pairs:
        server.sendall(TICK + TICK + end_of(2))
    counted = count(pairs)
    assert (counted.total.expected, counted.total.delivered, counted.total.ended) == (6, 6, 3)
    assert (counted.total.conflated, counted.total.lost, counted.total.repeated, counted.stalled) == (
        0,
        0,
        0,
        False,
    )
    [latency] = counted.groups[0].windows
    assert latency.samples == 6
    assert latency.p50_ms is not None
    assert latency.p99_ms is not None
    assert 0 <= latency.p50_ms <= latency.p99_ms


def test_marks_cut_anywhere_are_counted_once() -> None:
    """However a message and the end mark are spread over two reads, each counts once, and so does its number."""
    message, end = trade(7), end_of(1)
    for cut in range(1, len(message)):
        # packets: each one is a read of its own
        server, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with server, ours:
            for data, place in ((message, cut), (end, cut % (len(end) - 1) + 1)):
                server.send(data[:place])
                server.send(data[place:])
            counted = count([(server, ours)], stream=True)
        assert (counted.total.delivered, counted.total.ended, counted.total.repeated, counted.total.lost) == (
            1,
            1,
            0,
            0,
        ), cut


def test_every_channel_has_an_end_mark_of_its_own(pairs: list[Pair]) -> None:
    """A last value that comes twice does not stand in for another channel's: without one something is lost."""
    for server, _ in pairs:
        server.sendall(TICK + end_of(1))
        server.sendall(end_of(1) if server is pairs[0][0] else end_of(0, channel=1))
    counted = count(pairs, hand=(0, 1), stall_s=0.05)
    assert counted.stalled
    assert (counted.total.delivered, counted.total.ended, counted.total.lost) == (3, 5, 1)


def test_what_is_missing_before_the_end_mark_was_conflated(pairs: list[Pair]) -> None:
    """A subscriber that has the last value missed older ones by conflation; without it, it has lost something."""
    for server, _ in pairs[:2]:
        server.sendall(TICK + end_of(3))
    pairs[2][0].sendall(TICK)
    pairs[2][0].close()
    counted = count(pairs)
    assert (counted.total.delivered, counted.total.conflated, counted.total.lost, counted.closed) == (
        3,
        4,
        2,
        1,
    )


def test_nothing_is_conflated_on_a_stream(pairs: list[Pair]) -> None:
    """A message that is missing is lost, even when the last value came and another message came twice."""
    for server, _ in pairs[:2]:
        server.sendall(trade(0) + trade(1) + trade(2) + end_of(3))
    pairs[2][0].sendall(trade(0) + trade(2) + trade(2) + end_of(3))
    counted = count(pairs, stream=True)
    assert (counted.total.delivered, counted.total.conflated, counted.total.lost, counted.total.repeated) == (
        9,
        0,
        1,
        1,
    )


def test_a_tick_that_comes_twice_is_told(pairs: list[Pair]) -> None:
    """Repeats don't make up for what is missing elsewhere."""
    for server, _ in pairs:
        server.sendall(TICK * (2 if server is pairs[0][0] else 1) + end_of(1))
    counted = count(pairs)
    assert (counted.total.repeated, counted.total.conflated, counted.total.lost) == (1, 0, 0)


def test_latencies_before_and_after_are_kept_apart(pairs: list[Pair]) -> None:
    """A new window begins when the command says so."""

    def finish() -> None:
        for server, _ in pairs:
            server.sendall(TICK + end_of(1))

    counted = count(pairs, at_order=finish)
    assert [window.samples for window in counted.groups[0].windows] == [0, 3]


def test_the_counter_gives_up_when_nothing_arrives(pairs: list[Pair]) -> None:
    """When nothing arrives any more it gives up, and says that it did."""
    counted = count(pairs, stall_s=0.05)
    assert counted.stalled
    assert (counted.total.delivered, counted.total.lost, counted.groups[0].windows[0].p50_ms) == (0, 3, None)


def test_all_connections_closed_ends_it(pairs: list[Pair]) -> None:
    """There is nothing to wait for without a connection."""
    for server, _ in pairs:
        server.close()
    counted = count(pairs)
    assert (counted.closed, counted.total.lost) == (3, 3)


def test_a_message_after_a_later_one_is_out_of_order(pairs: list[Pair]) -> None:
    """On a connection with one channel of a stream numbers only grow; one that came twice is not out of order."""
    for server, _ in pairs:
        server.sendall(trade(0) + trade(2) + trade(1) + trade(2) + end_of(3))
    counted = count(pairs, stream=True)
    assert (counted.total.lost, counted.total.repeated, counted.total.disordered) == (
        0,
        len(pairs),
        len(pairs),
    )
