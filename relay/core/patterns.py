"""Channel names and patterns: dot-separated segments with the wildcards of NATS.

A channel name has at most 64 bytes, in segments of `[A-Za-z0-9_=^/:~+@&!-]+`. In a pattern, `*` stands for exactly one
segment, and `>` as the last segment stands for one or more (https://docs.nats.io/nats-concepts/subjects).

Names are case-sensitive and are never normalised. Every other form is refused, so that two spellings can't mean
the same channel.
"""

import re
from typing import Generic, TypeVar

from relay.core.errors import MalformedError

MAX_CHANNEL_BYTES = 64
"""Longest channel name. Exchanges' symbols stay below 32 bytes. NATS and Pusher allow 200; each frame has the name."""

_SEGMENT = r"[A-Za-z0-9_=^/:~+@&!\-]+"
# `@ & !` are in symbols of exchanges: btcusdt@trade, M&M, NIFTY1!. Not allowed, because some syntax around a name would
# need them: the comma separates the names of `channels=`; quotes, brackets, $ and spaces have a meaning in shells, HTML
# and log queries, and no exchange's symbol needs them; % and # have one in URLs.
CHANNEL_REGEX = rf"{_SEGMENT}(?:\.{_SEGMENT})*"
"""A channel name. JSON Schema and JavaScript read this regular expression too."""

_CHANNEL = re.compile(CHANNEL_REGEX, re.ASCII)
_PATTERN = re.compile(rf"(?:(?:{_SEGMENT}|\*)\.)*(?:{_SEGMENT}|\*|>)", re.ASCII)


def is_channel(text: str) -> bool:
    """Tell whether `text` is an exact channel name."""
    return len(text) <= MAX_CHANNEL_BYTES and _CHANNEL.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Tell whether `text` is a channel name or a pattern."""
    return len(text) <= MAX_CHANNEL_BYTES and _PATTERN.fullmatch(text) is not None


def is_wildcard(pattern: str) -> bool:
    """Tell whether a valid pattern has a wildcard. Such a pattern can match more than one channel."""
    return pattern.endswith(">") or "*" in pattern


def check_channel(text: str) -> str:
    """Return `text` if it is an exact channel name.

    Raises:
        MalformedError: if it is not. The text says what a channel name is.
    """
    if not is_channel(text):
        raise MalformedError(
            f"{text[:80]!r} is not a channel: use dot-separated segments of letters, digits and _=^/:~+@&!-, "
            f"at most {MAX_CHANNEL_BYTES} bytes."
        )
    return text


def check_pattern(text: str) -> str:
    """Return `text` if it is a channel name or pattern.

    Raises:
        MalformedError: if it is not. The text says what a pattern is.
    """
    if not is_pattern(text):
        raise MalformedError(
            f"{text[:80]!r} is not a channel or pattern: use dot-separated segments of letters, digits and "
            f"_=^/:~+@&!-, * for one segment, > at the end for the rest, at most {MAX_CHANNEL_BYTES} bytes."
        )
    return text


def intersection(one: str, other: str) -> str | None:
    """Return the pattern that matches exactly the channels that both valid patterns match. None: no channel can.

    Two patterns never need more than one: at each position the narrower segment counts, and `>` is wider than any rest.
    """
    first, second = one.split("."), other.split(".")
    both: list[str] = []
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if ">" in (a, b):
            both += second[index:] if a == ">" else first[index:]
            break
        if a != b and "*" not in (a, b):
            return None
        both.append(b if a == "*" else a)
    else:
        if len(first) != len(second):
            return None
    found = ".".join(both)
    return (
        found if len(found) <= MAX_CHANNEL_BYTES else None
    )  # each channel that it matches is at least as long


def may_overlap(one: str, other: str) -> bool:
    """Tell whether a channel can exist that matches both patterns."""
    return intersection(one, other) is not None


def covers(granted: str, requested: str) -> bool:
    """Tell whether `granted` matches every channel that `requested` can match. Both are valid patterns.

    If `requested` is an exact channel, this is plain matching. `>` covers `*` and `>`, but `*` does not cover `>`.
    """
    granted_segments, requested_segments = granted.split("."), requested.split(".")
    for index, segment in enumerate(granted_segments):
        if segment == ">":
            return len(requested_segments) > index
        if index >= len(requested_segments) or requested_segments[index] == ">":
            return False
        if segment != "*" and segment != requested_segments[index]:
            return False
    return len(requested_segments) == len(granted_segments)


Item = TypeVar("Item")


class ChannelIndex(Generic[Item]):
    """A tree of items by the segments of their channel names.

    Finding the matches of a pattern costs as much as the branches that it reaches, not as much as all channels. One
    frame may have 256 patterns: to compare each with each of 5000 channels held the event loop for three seconds.
    """

    __slots__ = ("branches", "item")

    def __init__(self) -> None:
        self.branches: dict[str, ChannelIndex[Item]] = {}
        self.item: Item | None = None

    def add(self, name: str, item: Item) -> None:
        """Store `item` under the channel `name`."""
        node = self
        for segment in name.split("."):
            node = node.branches.setdefault(segment, ChannelIndex())
        node.item = item

    def remove(self, name: str) -> None:
        """Remove the item of the channel `name`, if there is one, and the branches that are then empty."""
        path: list[tuple[ChannelIndex[Item], str]] = []
        node = self
        for segment in name.split("."):
            if segment not in node.branches:
                return
            path.append((node, segment))
            node = node.branches[segment]
        node.item = None
        for parent, segment in reversed(path):
            branch = parent.branches[segment]
            if branch.item is not None or branch.branches:
                return
            del parent.branches[segment]

    def matching(self, pattern: str) -> list[Item]:
        """Return the items whose channel a valid pattern matches."""
        nodes: list[ChannelIndex[Item]] = [self]
        for segment in pattern.split("."):
            if segment == ">":
                return [item for node in nodes for branch in node.branches.values() for item in branch.all()]
            if segment == "*":
                nodes = [branch for node in nodes for branch in node.branches.values()]
            else:
                nodes = [node.branches[segment] for node in nodes if segment in node.branches]
        return [node.item for node in nodes if node.item is not None]

    def all(self) -> list[Item]:
        """Return all items of this branch."""
        found: list[Item] = []
        nodes = [self]
        while nodes:
            node = nodes.pop()
            nodes.extend(node.branches.values())
            if node.item is not None:
                found.append(node.item)
        return found
