"""When subscribers get the next slice of what they have to catch up with: first values and replays."""

from collections.abc import Callable

from relay.core.subscribers import Subscriber

CATCH_UP_MS = 16
"""Time between two slices to one subscriber whose sink accepts them at once. With 16 KiB a slice: 1 MiB/s."""

SLICES_PER_TURN = 16
"""Slices written in one turn of the event loop: 1 to 3 ms. Thousands of subscribers resume when a relay restarts."""


class CatchUp:
    """The subscribers that get slices. `wake_interval` asks the caller to call `write` after `CATCH_UP_MS`."""

    def __init__(self, wake_interval: Callable[[int], None]) -> None:
        self._wake_interval = wake_interval
        self._waiting: dict[Subscriber, None] = {}  # they get a slice after CATCH_UP_MS
        self._due: list[Subscriber] = []  # they get a slice in the next turns
        self._awaited = False  # the caller was asked for the next `write`

    def __bool__(self) -> bool:
        """Tell whether any subscriber waits for a slice."""
        return bool(self._waiting or self._due)

    def add(self, subscriber: Subscriber) -> None:
        """Give a subscriber a slice after `CATCH_UP_MS`."""
        self._waiting[subscriber] = None
        self._wake()

    def discard(self, subscriber: Subscriber) -> None:
        """Forget a subscriber that has left. If its slice is due, the caller's function is called nevertheless."""
        self._waiting.pop(subscriber, None)

    def write(self, write_slice: Callable[[Subscriber], None]) -> bool:
        """Call `write_slice` for `SLICES_PER_TURN` subscribers. True: others are due too."""
        due = self._due
        if not due:
            due += self._waiting
            self._waiting.clear()
        for _ in range(min(SLICES_PER_TURN, len(due))):
            write_slice(due.pop())
        if due:
            return True
        self._awaited = False
        if self._waiting:
            self._wake()
        return False

    def _wake(self) -> None:
        if not self._awaited:
            self._awaited = True
            self._wake_interval(CATCH_UP_MS)
