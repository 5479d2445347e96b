"""Channels by their segments, so that a pattern costs what the branches below it cost, and not all channels.

One frame may name 256 patterns: with 5000 channels, comparing each with each held the loop for three seconds.
"""

from typing import Generic, TypeVar

Item = TypeVar("Item")


class ChannelIndex(Generic[Item]):
    """A tree of items by channel name. Items stay: a channel that has had a value keeps it."""

    __slots__ = ("branches", "item")

    def __init__(self) -> None:
        self.branches: dict[str, ChannelIndex[Item]] = {}
        self.item: Item | None = None

    def add(self, name: str, value: Item) -> None:
        """Put `value` at the channel `name`."""
        node = self
        for segment in name.split("."):
            node = node.branches.setdefault(segment, ChannelIndex())
        node.item = value

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
        """Return every item from here on."""
        found: list[Item] = []
        nodes = [self]
        while nodes:
            node = nodes.pop()
            nodes.extend(node.branches.values())
            if node.item is not None:
                found.append(node.item)
        return found
