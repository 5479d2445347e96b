"""What a subscriber wants, apart from any connection, and how it is said to the relay.

Whatever connection there is, all of it has to be asked for again on the next one. The first group goes with
the URL: its values follow the welcome without another round trip, and the relay does not take the connection
for one that subscribes to nothing. The rest is sent in frames (`relay.client.asks`): what has no room there,
has another interval, or is to be resumed, for which the URL has no words.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Self
from urllib.parse import quote

from relay.core.errors import ConfigurationError
from relay.core.patterns import check_pattern, covers

INTERVALS_MS = (0, 50, 100, 250, 500, 1000)
URL_CHARS = 1500
"""Proxies in front of a relay refuse long request lines; 8000 is a common bound, the token may take 4096."""


class Wishes:
    """Channels and patterns with their intervals in milliseconds."""

    def __init__(self) -> None:
        self._wanted: dict[str, int] = {}

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Return wishes for `names`, which are known to be valid."""
        wishes = cls()
        wishes._wanted = dict.fromkeys(names, 0)
        return wishes

    @property
    def names(self) -> Collection[str]:
        """The channels and patterns."""
        return self._wanted.keys()

    def add(self, names: Iterable[str], interval_ms: int) -> None:
        """Want `names` from now on.

        Raises:
            ConfigurationError: if the interval is none of `INTERVALS_MS`.
            MalformedError: if a name is neither a channel nor a pattern; then none is added.
        """
        if interval_ms not in INTERVALS_MS:
            known = ", ".join(map(str, INTERVALS_MS))
            raise ConfigurationError(f"interval_ms is one of {known}, not {interval_ms}.")
        self._wanted |= {check_pattern(name): interval_ms for name in names}

    def remove(self, names: Iterable[str]) -> list[str]:
        """Stop wanting `names`; returns those that were wanted."""
        return [name for name in names if self._wanted.pop(name, None) is not None]

    def covers(self, channel: str) -> bool:
        """Tell whether any wish takes this exact channel in."""
        return channel in self._wanted or any(covers(pattern, channel) for pattern in self._wanted)

    def covering(self, channel: str) -> dict[str, int]:
        """Return the wishes that take this exact channel in, with their intervals."""
        return {name: interval for name, interval in self._wanted.items() if covers(name, channel)}

    def query(self, resumable: Collection[str] = ()) -> tuple[str, dict[str, int]]:
        """Return the URL's query for the first of the wishes ("" for none), and which these are.

        A wish that takes one of the `resumable` channels in is none of them.
        """
        able = {
            name: interval
            for name, interval in self._wanted.items()
            if name not in resumable and not any(covers(name, channel) for channel in resumable)
        }
        interval_ms = next(iter(able.values()), 0)
        asked: dict[str, int] = {}
        quoted, length = [], 0
        for name in (name for name, interval in able.items() if interval == interval_ms):
            text = quote(name, safe="")
            length += len(text) + 1
            if length > URL_CHARS:
                break
            quoted.append(text)
            asked[name] = interval_ms
        return (f"channels={','.join(quoted)}&interval_ms={interval_ms}" if quoted else ""), asked

    def missing(self, asked: Mapping[str, int]) -> dict[str, int]:
        """Return what is wanted and was not `asked`, with its intervals in milliseconds."""
        return {name: interval for name, interval in self._wanted.items() if asked.get(name) != interval}
