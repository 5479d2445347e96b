"""Where a session stands in a request: which cookie, and how its parts go together.

Browsers keep 4096 bytes a cookie, so Auth.js cuts a longer session into `NAME.0`, `NAME.1` and so on. Whichever
cookie it is, everything that could have been planted by a sibling domain beside the real one is refused, because
which of two a parser takes is chance (cookie tossing): the same name twice, a chunk twice, and chunks beside a
whole one. Values are taken as they are: base64url and dots need no decoding.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from relay.core.errors import Reason, Refusal

MAX_CHUNKS: Final = 5
"""Most parts of a session. Auth.js puts 3936 bytes into each, and 16 KiB are read."""

_INDEX = re.compile(r"0|[1-9][0-9]?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCookies:
    """Names of cookies that may hold the session, the preferred first. Those in `chunked` may come in parts."""

    names: tuple[str, ...]
    chunked: frozenset[str] = frozenset()


def find_session(headers: Iterable[str], cookies: SessionCookies) -> str | Refusal:
    """Return the session in the Cookie headers' values: of the first name that has one.

    A name that has something refusable is refused, whatever stands under the others. An empty cookie is none.
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
                # white space as RFC 6265 §5.2 has it: Python strips more, and "\xa0__Host-name" would pass for __Host-
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
            return Refusal(reason=Reason.SESSION_REPEATED, detail=f"{name} came both whole and in parts.")
        return present[name]
    wanted = [f"{name}.{index}" for index in range(len(present))]
    if len(wanted) > MAX_CHUNKS or present.keys() != set(wanted):
        return Refusal(
            reason=Reason.SESSION_INVALID,
            detail=f"The parts of {name} are not 0, 1 and so on, {MAX_CHUNKS} at most.",
        )
    return "".join(present[key] for key in wanted)
