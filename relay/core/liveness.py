"""Which channels have a publisher that is there, and which have been silent for longer than they may."""

from collections.abc import Iterator

from relay.core.channels import Feed


class Silence:
    """Watches the channels that have a value. What it finds is in `Feed.stale`."""

    def __init__(self) -> None:
        # silence_ms -> feeds, those heard of longest ago first: a look costs no more than there is to find
        self._fresh: dict[int, dict[Feed, None]] = {}

    def heard_of(self, feed: Feed) -> bool:
        """Note that a channel's publisher is there. True: the channel was called stale."""
        was_stale, feed.stale = feed.stale, False
        fresh = self._fresh.setdefault(feed.options.silence_ms, {})
        fresh.pop(feed, None)
        fresh[feed] = None
        return was_stale

    def sweep(self, *, now_ms: int) -> Iterator[Feed]:
        """Call channels stale that were silent for too long; returns them."""
        for silence_ms, feeds in self._fresh.items():
            while feeds:
                feed = next(iter(feeds))
                if now_ms - feed.heard_ms <= silence_ms:
                    break
                del feeds[feed]
                feed.stale = feed.noted = True
                yield feed
