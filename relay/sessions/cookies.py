"""The session in a request's Cookie headers: which cookie, and how its chunks are joined.

Browsers keep 4096 bytes a cookie, so Auth.js splits a longer session into `NAME.0`, `NAME.1` and so on.

A sibling domain can plant a cookie of the same name (cookie tossing), and parsers differ in which of the two they take.
So these are refused: a name twice, a chunk twice, and chunks together with a whole cookie. Values are used as they
are, because base64url and dots need no decoding.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from relay.core.errors import Reason, Refusal

MAX_CHUNKS: Final = 5
"""Most chunks of a session. Auth.js puts 3936 bytes into each, and the relay reads 16 KiB."""

_INDEX = re.compile(r"0|[1-9][0-9]?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCookies:
    """Names of cookies that may hold the session, in order of preference. Those in `chunked` may come in chunks."""

    names: tuple[str, ...]
    chunked: frozenset[str] = frozenset()


def find_session(headers: Iterable[str], cookies: SessionCookies) -> str | Refusal:
    """Return the session in the values of the Cookie headers: the cookie of the first name that is present.

    A bad cookie is refused, whatever the later names hold. An empty cookie counts as absent.
    """
    pairs = list(_pairs(headers))
    for name in cookies.names:
        found = _of_name(pairs, name, chunked=name in cookies.chunked)
        if isinstance(found, Refusal) or found:
            return found
    return Refusal(reason=Reason.SESSION_MISSING)


def _pairs(headers: Iterable[str]) -> Iterator[tuple[str, str]]:
    for header in headers:
        for part in header.split(";"):
            name, separator, value = part.partition("=")
            if separator:
                # white space of RFC 6265 §5.2 only: Python strips more, and "\xa0__Host-name" would pass as __Host-name
                yield name.strip(" \t"), value.strip(" \t").strip('"')


def _of_name(pairs: list[tuple[str, str]], name: str, *, chunked: bool) -> str | Refusal:
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for key, value in pairs:
        is_part = chunked and key.startswith(f"{name}.") and _INDEX.fullmatch(key[len(name) + 1 :])
        if key == name or is_part:
            parts[key].append(value)
    if any(len(values) > 1 for values in parts.values()):
        return Refusal(reason=Reason.SESSION_REPEATED)
    present = {key: values[0] for key, values in parts.items() if values[0]}
    if name in present:
        if len(present) > 1:
            return Refusal(reason=Reason.SESSION_REPEATED, detail=f"{name} came both whole and in chunks.")
        return present[name]
    wanted = [f"{name}.{index}" for index in range(len(present))]
    if len(wanted) > MAX_CHUNKS or present.keys() != set(wanted):
        return Refusal(
            reason=Reason.SESSION_INVALID,
            detail=f"The chunks of {name} are not 0, 1 and so on, {MAX_CHUNKS} at most.",
        )
    return "".join(present[key] for key in wanted)
