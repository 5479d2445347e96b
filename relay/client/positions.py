"""Which values a subscriber has seen, so that none is handed out twice.

Brokers deliver at least once and a reconnect begins with the values as they stand, so repeats are ordinary.
Within one `epoch` (the sequencer's life) `seq` only grows; a new epoch begins with a snapshot and counts from
1 again. Only snapshots and acks name the epoch: an update belongs to the one before it.
"""

from collections.abc import Callable

from relay.client.frames import Snapshot, Subscribed, Update


class Positions:
    """The newest epoch and seq of every channel that was seen."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str | None, int]] = {}

    def is_new(self, value: Snapshot | Update) -> bool:
        """Tell whether `value` was not seen before, and remember it."""
        epoch, seq = self._seen.get(value.channel, (None, -1))
        if isinstance(value, Snapshot) and value.epoch != epoch:
            epoch = value.epoch
        elif value.seq <= seq:
            return False
        self._seen[value.channel] = (epoch, value.seq)
        return True

    def acknowledge(self, frame: Subscribed) -> None:
        """Take over the epochs of exact channels. Not their `seq`: the value itself is still to come."""
        for item in frame.channels:
            if item.epoch is not None and self._seen.get(item.channel, (None, -1))[0] != item.epoch:
                self._seen[item.channel] = (item.epoch, 0)

    def forget(self, is_wanted: Callable[[str], bool]) -> None:
        """Forget the channels that nobody wants any more; subscribed again, they begin with a snapshot."""
        self._seen = {channel: seen for channel, seen in self._seen.items() if is_wanted(channel)}
