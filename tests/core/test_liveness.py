"""Heartbeats: which subscribers get one, and that thousands are written in slices."""

from relay.core.liveness import BEATS_PER_HEARTBEAT, HEARTBEATS_PER_SLICE, send_heartbeats
from relay.core.subscribers import Subscriber
from tests.support.hub import line_frame

MESSAGE = b"heartbeat"
FRAME = b"heartbeat\n"


class Line:
    def __init__(self, waiting: int = 0) -> None:
        self.writes: list[bytes] = []
        self.waiting = waiting

    def write(self, data: bytes, /) -> None:
        self.writes.append(data)

    def pending(self) -> int:
        return self.waiting

    def overflow(self) -> None:
        raise AssertionError


def crowd(lines: list[Line], heard: int = 0) -> dict[Subscriber, None]:
    return dict.fromkeys(Subscriber(line, line_frame, heard) for line in lines)


def test_thousands_that_are_silent_are_written_to_in_slices() -> None:
    """Other tasks can run after each slice. Subscribers that left or were written to in between get none."""
    lines = [Line() for _ in range(2 * HEARTBEATS_PER_SLICE + 10)]
    subscribers = crowd(lines)
    order = list(subscribers)
    beating = send_heartbeats(subscribers, MESSAGE, beat=BEATS_PER_HEARTBEAT)
    next(beating)
    assert [len(line.writes) for line in lines] == [1] * HEARTBEATS_PER_SLICE + [0] * (
        HEARTBEATS_PER_SLICE + 10
    )
    del subscribers[order[-1]]
    order[-2].last_beat = BEATS_PER_HEARTBEAT
    subscribers |= crowd([Line()])
    list(beating)
    assert [line.writes for line in lines] == [[FRAME]] * (2 * HEARTBEATS_PER_SLICE + 8) + [[], []]
    assert {one.last_beat for one in order[:-2]} == {BEATS_PER_HEARTBEAT}
    assert order[0].bytes == len(FRAME)


def test_who_heard_something_or_has_bytes_waiting_gets_none() -> None:
    """Its client will get the pending data, which is as good as a heartbeat."""
    heard, stalled, silent = Line(), Line(waiting=1), Line()
    subscribers = crowd([heard], heard=2) | crowd([stalled, silent], heard=1)
    list(send_heartbeats(subscribers, MESSAGE, beat=BEATS_PER_HEARTBEAT + 1))
    assert [len(line.writes) for line in (heard, stalled, silent)] == [0, 0, 1]
