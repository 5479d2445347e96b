"""The session in a request's Cookie headers: which cookie, and how its chunks are joined.

Browsers keep 4096 bytes a cookie, so a longer session is split into `NAME.0`, `NAME.1` and so on, as Auth.js does it.

A sibling domain can plant a cookie of the same name (cookie tossing), and parsers differ in which of the two they take.
So two different values of a name are refused, two of a chunk, and chunks together with a whole cookie. The same value
twice is one, and an empty cookie is none: browsers and proxies really send both. Values are used as they are: what they
mean is the verifier's business (RFC 6265 §4.1.1).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from relay.core.errors import Reason, Refusal

MAX_CHUNKS: Final = 5
"""Most chunks of a session. The relay reads 32 KiB of headers."""

CHUNK_CHARS: Final = 3936
"""Characters in a chunk, as in Auth.js: 4096 without 160 for the name and the attributes."""

MAX_SESSION_CHARS: Final = MAX_CHUNKS * CHUNK_CHARS
"""Longest session in all its chunks."""

MAX_FOUND: Final = 8
"""Most sessions that one log-out looks for. Each costs a check of a signature, or a call to the backend."""

_INDEX = re.compile(r"0|[1-9][0-9]?", re.ASCII)
_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCookies:
    """Names of cookies that may hold the session, in order of preference. Each may come whole or in chunks."""

    names: tuple[str, ...]


def is_cookie_value(text: str) -> bool:
    """Tell whether `text` can be the value of a cookie without quotes (RFC 6265 §4.1.1). It can be in any header."""
    return _VALUE.fullmatch(text) is not None


def split(name: str, value: str) -> dict[str, str]:
    """Return the cookies that hold `value`: one with this name, or its chunks."""
    if len(value) <= CHUNK_CHARS:
        return {name: value}
    starts = range(0, len(value), CHUNK_CHARS)
    return {f"{name}.{index}": value[start : start + CHUNK_CHARS] for index, start in enumerate(starts)}


def find_session(headers: Iterable[str], cookies: SessionCookies) -> str | Refusal:
    """Return the session in the values of the Cookie headers: the cookie of the first name that is present.

    A bad cookie is refused, whatever the later names hold. An empty cookie counts as absent.
    """
    pairs = list(_pairs(headers))
    for name in cookies.names:
        if found := _of_name(_values(pairs, name), name):
            return found
    return Refusal(reason=Reason.SESSION_MISSING)


def find_all(headers: Iterable[str], cookies: SessionCookies) -> tuple[list[str], Refusal | None]:
    """Return every session in the Cookie headers, at most `MAX_FOUND`, and why there may be others. For log-outs."""
    pairs = list(_pairs(headers))
    found: dict[str, None] = {}  # a set with an order
    unread = None
    for name in cookies.names:
        values = _values(pairs, name)
        found |= dict.fromkeys(values.pop(name, []))
        if isinstance(joined := _of_name(values, name), Refusal):
            unread = joined
        elif joined:
            found[joined] = None
    if len(found) > MAX_FOUND:
        unread = Refusal(reason=Reason.SESSION_REPEATED, detail=f"More than {MAX_FOUND} sessions came.")
    return list(found)[:MAX_FOUND], unread


def present(headers: Iterable[str], name: str) -> dict[str, bool]:
    """Return the cookies that have this name or are its chunks, and whether each came more than once."""
    pairs = [key for key, _ in _pairs(headers) if _belongs(key, name)]
    return {key: pairs.count(key) > 1 for key in pairs}


def _pairs(headers: Iterable[str]) -> Iterator[tuple[str, str]]:
    for header in headers:
        for part in header.split(";"):
            name, separator, value = part.partition("=")
            if separator:
                # white space of RFC 6265 §5.2 only: Python strips more, and "\xa0__Host-name" would pass as __Host-name
                yield name.strip(" \t"), value.strip(" \t").strip('"')


def _belongs(key: str, name: str) -> bool:
    return key == name or (key.startswith(f"{name}.") and _INDEX.fullmatch(key[len(name) + 1 :]) is not None)


def _values(pairs: Iterable[tuple[str, str]], name: str) -> dict[str, list[str]]:
    """Return the different values of the cookie and of each of its chunks. Empty ones count as absent."""
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        if value and _belongs(key, name) and value not in values.setdefault(key, []):
            values[key].append(value)
    return values


def _of_name(values: Mapping[str, list[str]], name: str) -> str | Refusal:
    """Return the one session in these values; "" if there is none."""
    if any(len(different) > 1 for different in values.values()):
        return Refusal(reason=Reason.SESSION_REPEATED, detail=f"{name} came with different values.")
    if name in values:
        if len(values) > 1:
            return Refusal(reason=Reason.SESSION_REPEATED, detail=f"{name} came both whole and in chunks.")
        return values[name][0]
    wanted = [f"{name}.{index}" for index in range(len(values))]
    if len(wanted) > MAX_CHUNKS or values.keys() != set(wanted):
        return Refusal(
            reason=Reason.SESSION_INVALID,
            detail=f"The chunks of {name} are not 0, 1 and so on, {MAX_CHUNKS} at most.",
        )
    return "".join(values[key][0] for key in wanted)
