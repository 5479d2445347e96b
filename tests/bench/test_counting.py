"""Counting without parsing: whatever the kernel cuts the bytes into, the figures are right."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from relay.bench.counting import Counted, Counter
from relay.bench.ticks import Ticks

TICKS = Ticks(run="0a1b2c3d", channel="prices.BENCH")


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Three connections: the server's end, and the load's."""
    made = [socket.socketpair() for _ in range(3)]
    for _, ours in made:
        ours.setblocking(False)
    yield made
    for pair in made:
        for end in pair:
            end.close()


def count(
    pairs: list[tuple[socket.socket, socket.socket]],
    finish: Callable[[], None],
    *,
    ticks: int,
    stall_s: float = 10.0,
) -> Counted:
    """Count until the end; `finish` is called when the counter has been told that the publisher is done."""
    ask, order = os.pipe()
    os.write(order, b"\n")

    def command() -> bool:
        os.read(ask, 1)
        finish()
        return True

    counter = Counter(
        [ours for _, ours in pairs],
        ticks=ticks,
        marker=TICKS.marker,
        end_marker=TICKS.end_marker,
        stall_s=stall_s,
    )
    try:
        return counter.run(ask, command)
    finally:
        counter.close()
        os.close(ask)
        os.close(order)


def test_everything_that_arrives_is_counted(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """Ticks on every connection, several in one read, make their number; nothing is missing."""

    def finish() -> None:
        for server, _ in pairs:
            server.sendall(TICKS.message(1) + TICKS.message(2) + TICKS.end_message(3))

    counted = count(pairs, finish, ticks=2)
    assert (counted.delivered, counted.ended) == (6, 3)
    assert (counted.conflated, counted.lost, counted.repeated, counted.stalled) == (0, 0, 0, False)
    assert counted.p50_ms is not None
    assert counted.max_ms is not None
    assert 0 <= counted.p50_ms <= counted.max_ms


def test_a_tick_cut_anywhere_is_counted_once() -> None:
    """However a tick and the end mark are spread over two reads, each counts once."""
    tick, end = TICKS.message(1), TICKS.end_message(2)
    for cut in range(1, len(tick)):
        # packets: each one is a read of its own
        server, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with server, ours:
            server.send(tick[:cut])
            server.send(tick[cut:])

            def finish(server: socket.socket = server, cut: int = cut % (len(end) - 1) + 1) -> None:
                server.send(end[:cut])
                server.send(end[cut:])

            counted = count([(server, ours)], finish, ticks=1)
        assert (counted.delivered, counted.ended, counted.repeated) == (1, 1, 0), cut


def test_markers_may_differ_in_length() -> None:
    """What stands before a read because of the longer marker is not searched for the shorter one again."""
    server, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    counter = Counter([ours], ticks=2, marker=b"tick", end_marker=b"the long end mark", stall_s=10.0)
    ask, order = os.pipe()
    os.write(order, b"\n")
    server.send(b"...tick")
    server.send(b"....tick")

    def command() -> bool:
        os.read(ask, 1)
        server.send(b"the long")
        server.send(b" end mark")
        return True

    with server, ours:
        counted = counter.run(ask, command)
        counter.close()
    os.close(ask)
    os.close(order)
    assert (counted.delivered, counted.ended, counted.repeated) == (2, 1, 0)


def test_what_is_missing_before_the_end_mark_was_conflated(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """A subscriber that has the last value missed older ones by conflation; without it, it has lost something."""

    def finish() -> None:
        for server, _ in pairs[:2]:
            server.sendall(TICKS.message(3) + TICKS.end_message(4))
        pairs[2][0].sendall(TICKS.message(1))
        pairs[2][0].close()

    counted = count(pairs, finish, ticks=3)
    assert (counted.delivered, counted.conflated, counted.lost, counted.closed) == (3, 4, 2, 1)


def test_a_tick_that_comes_twice_is_told(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """Repeats don't make up for what is missing elsewhere."""

    def finish() -> None:
        for server, _ in pairs:
            server.sendall(TICKS.message(1) * (2 if server is pairs[0][0] else 1) + TICKS.end_message(2))

    counted = count(pairs, finish, ticks=1)
    assert (counted.repeated, counted.conflated, counted.lost) == (1, 0, 0)


def test_silence_ends_it(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """When nothing arrives any more it gives up, and says that it did."""
    counted = count(pairs, lambda: None, ticks=1, stall_s=0.05)
    assert counted.stalled
    assert (counted.delivered, counted.lost, counted.p50_ms) == (0, 3, None)


def test_all_connections_closed_ends_it(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """There is nothing to wait for without a connection."""

    def finish() -> None:
        for server, _ in pairs:
            server.close()

    counted = count(pairs, finish, ticks=1)
    assert (counted.closed, counted.lost) == (3, 3)
