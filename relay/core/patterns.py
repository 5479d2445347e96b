"""Channel names and patterns: dot-separated segments, NATS's wildcards.

A channel is at most 64 bytes of segments `[A-Za-z0-9_=^/:~+-]+`. In a pattern `*` stands for exactly one
segment and a last `>` for one or more. Names are case-sensitive and never normalised: what is not of this
form is refused, so that no two spellings can mean the same channel
(https://docs.nats.io/nats-concepts/subjects).
"""

import re

from relay.core.errors import MalformedError

MAX_CHANNEL_BYTES = 64
"""Longest channel name: exchanges' symbols stay below 32. NATS and Pusher allow 200, in every frame."""

_SEGMENT = r"[A-Za-z0-9_=^/:~+\-]+"
CHANNEL_REGEX = rf"{_SEGMENT}(?:\.{_SEGMENT})*"
"""A channel, as JSON Schema and JavaScript read regular expressions too."""

_CHANNEL = re.compile(CHANNEL_REGEX, re.ASCII)
_PATTERN = re.compile(rf"(?:(?:{_SEGMENT}|\*)\.)*(?:{_SEGMENT}|\*|>)", re.ASCII)


def is_channel(text: str) -> bool:
    """Tell whether `text` is an exact channel name."""
    return len(text) <= MAX_CHANNEL_BYTES and _CHANNEL.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Tell whether `text` is a channel name or a pattern."""
    return len(text) <= MAX_CHANNEL_BYTES and _PATTERN.fullmatch(text) is not None


def is_wildcard(pattern: str) -> bool:
    """Tell whether a valid pattern has a wildcard, and so can match more than one channel."""
    return pattern.endswith(">") or "*" in pattern


def check_channel(text: str) -> str:
    """Return `text` if it is an exact channel name.

    Raises:
        MalformedError: if it is not; the sentence says what a channel name is.
    """
    if not is_channel(text):
        raise MalformedError(
            f"{text[:80]!r} is not a channel: use dot-separated segments of letters, digits and _=^/:~+-, "
            f"at most {MAX_CHANNEL_BYTES} bytes."
        )
    return text


def check_pattern(text: str) -> str:
    """Return `text` if it is a channel name or pattern.

    Raises:
        MalformedError: if it is not; the sentence says what a pattern is.
    """
    if not is_pattern(text):
        raise MalformedError(
            f"{text[:80]!r} is not a channel or pattern: use dot-separated segments of letters, digits and "
            f"_=^/:~+-, * for one segment, a last > for the rest, at most {MAX_CHANNEL_BYTES} bytes."
        )
    return text


def may_overlap(one: str, other: str) -> bool:
    """Tell whether some channel could match both patterns."""
    first, second = one.split("."), other.split(".")
    for index in range(max(len(first), len(second))):
        a = first[index] if index < len(first) else None
        b = second[index] if index < len(second) else None
        if a is None or b is None:
            return False
        if a == ">" or b == ">":
            return True
        if a != b and "*" not in (a, b):
            return False
    return True


def covers(granted: str, asked: str) -> bool:
    """Tell whether every channel that `asked` can match is matched by `granted` too. Both are valid patterns.

    With `asked` an exact channel this is plain matching. `>` covers `*` and `>`, but `*` does not cover `>`.
    """
    have, want = granted.split("."), asked.split(".")
    for index, segment in enumerate(have):
        if segment == ">":
            return len(want) > index
        if index >= len(want) or want[index] == ">":
            return False
        if segment != "*" and segment != want[index]:
            return False
    return len(want) == len(have)
