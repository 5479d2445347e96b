"""Canaries: texts that occur nowhere by chance, and every form in which one could be in a log."""

import base64
import json
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping

Canaries = dict[str, str]


def canary(name: str) -> str:
    """Return a text that occurs nowhere by chance."""
    return f"CANARY-{name.replace(' ', '-')}-{secrets.token_hex(8)}"


def spellings(mark: str) -> Iterator[str]:
    """Return how a mark could stand in a log: as it is, quoted, in base64, and for tokens each part of it."""
    yield mark
    yield urllib.parse.quote(mark)
    yield json.dumps(mark)[1:-1]
    yield mark.lower()
    for shift in range(3):
        encoded = base64.b64encode(b" " * shift + mark.encode()).decode()
        yield encoded[4 + 4 * (shift > 0) : -4]
    yield from (part for part in mark.split(".") if len(part) > 12)


def hits(marks: Mapping[str, str], sinks: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return which mark stands in which sink."""
    return {
        (name, sink)
        for name, mark in marks.items()
        for sink, text in sinks.items()
        for spelling in spellings(mark)
        if spelling in text
    }
