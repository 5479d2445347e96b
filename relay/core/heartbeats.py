"""Heartbeats to those who heard nothing for a while, a slice at a time.

All who watch a channel that went quiet are silent since the same tick: 15,000 heartbeats are due in one beat then,
and would hold the loop for 0.1 s.
"""

from collections.abc import Collection, Iterator

from relay.core.subscribers import Subscriber

BEATS_A_HEARTBEAT = 4
"""Beats of silence after which a heartbeat goes out. A client may hear nothing for 5/4 of its interval then,
and calls prices stale after 6/4."""

A_SLICE = 250
"""Heartbeats in one turn of the loop, about 2 ms."""


def send_heartbeats(subscribers: Collection[Subscriber], frame: bytes, *, beat: int) -> Iterator[None]:
    """Write `frame` to those who have had nothing since `BEATS_A_HEARTBEAT` before `beat`.

    Stops after each slice until it is asked to go on. Whoever leaves or hears something meanwhile is left out.
    """
    due = beat - BEATS_A_HEARTBEAT
    silent = [subscriber for subscriber in subscribers if subscriber.beat <= due]
    for number, subscriber in enumerate(silent, start=1):
        if subscriber.beat <= due and subscriber in subscribers and not subscriber.pending():
            subscriber.write(frame)
            subscriber.beat = beat
            subscriber.bytes += len(frame)
        if not number % A_SLICE:
            yield
