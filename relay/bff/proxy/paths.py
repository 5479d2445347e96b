"""The paths that go on to the backend: the bytes that are checked are the bytes that are sent.

Nothing is normalised. A path that two programs could read differently is refused, because the backend must see the
path that the route of the settings was chosen for. Otherwise `/users/%61dmin` would be filtered by the rules of
`/users`, and served as `/users/admin`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from relay.core.errors import Reason, Refusal

PREFIX: Final = b"/api/proxy/"

_PATH: Final = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/|^\[\]]|%[0-9A-Fa-f]{2})*")
"""RFC 3986 §3.3, and four characters that browsers send as they are. A backslash is not among them."""
_QUERY: Final = re.compile(rb"\?[\x21\x22\x24-\x7e]*")
"""Everything that can stand in a request line, but no `#`: some programs cut a target there."""
_ESCAPE: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_NEEDLESS: Final = re.compile(rb"%(?:2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
"""An escape of a letter, a digit or one of -._~ (RFC 3986 §2.3): a second spelling of the same path."""


R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Target:
    """What goes into the request line to the backend: `path` begins with `/`, and `query` with `?` if there is one."""

    path: bytes
    query: bytes

    @property
    def raw(self) -> bytes:
        """Return both, as they came."""
        return self.path + self.query


def read_target(raw: bytes) -> Target | Refusal:
    """Return the backend's part of a raw request target, or why it is refused.

    `raw` must be what the client sent, byte for byte. Frameworks decode and normalise their paths.
    """
    if not raw.startswith(b"/"):  # RFC 9112 §3.2.2: for forward proxies
        return _refused("The request line has an absolute URI.")
    if not raw.startswith(PREFIX):
        return Refusal(reason=Reason.ROUTE_UNKNOWN, detail="The path does not begin with /api/proxy/.")
    target = raw[len(PREFIX) - 1 :]
    path, mark, rest = target.partition(b"?")
    query = mark + rest
    if not _PATH.fullmatch(path):
        return _refused("The path has a character that no path has, or a % that begins no escape.")
    if query and not _QUERY.fullmatch(query):
        return _refused("The query has a character that no query has.")
    if _NEEDLESS.search(path):
        return _refused("The path escapes a character that needs no escape.")
    detail = _ambiguous(path)
    return _refused(detail) if detail else Target(path, query)


def _ambiguous(path: bytes) -> str:
    """Return why two programs could read the path differently, or ""."""
    decoded = unquote_to_bytes(path)
    if decoded.count(b"/") != path.count(b"/") or b"\\" in decoded:
        return "The path has an escaped slash or backslash."
    if _ESCAPE.search(decoded):
        return "The path is escaped twice."
    try:
        text = decoded.decode("utf-8")
    except UnicodeDecodeError:
        return "The path is not UTF-8."
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):
        return "The path has a control character."
    segments = text.split("/")[1:]
    if "" in segments[:-1]:
        return "The path has an empty segment."
    # "..;" is ".." for Java's servers, and ".. " is ".." for Windows
    names = [(segment.partition(";")[0], segment) for segment in segments]
    if any(not name.strip(" .") and ("." in name or name != segment) for name, segment in names):
        return "The path has a segment of dots, or of parameters alone."
    return ""


def _refused(detail: str) -> Refusal:
    return Refusal(reason=Reason.PATH_REFUSED, detail=detail)


def loosened(path: str | bytes) -> str:
    """Return a path as the most careless backend reads it: decoded, in lower case, without `;parameters`."""
    text = unquote_to_bytes(path).decode("utf-8", "replace").lower()
    return "/".join(segment.partition(";")[0].rstrip(" .") for segment in text.split("/"))


def _prefixes(path: str) -> Iterable[str]:
    """Return all prefixes of whole segments, the longest first, and "/" last."""
    while path and path != "/":
        yield path
        path = path.rpartition("/")[0]
    yield "/"


class PathTable(Generic[R]):
    """Finds the route of a path by its longest prefix of whole segments. `R` is a route.

    `forbidden` are paths that no route opens, in any letter case, with everything below them: the backend's own
    authentication routes, whose answers hold tokens.
    """

    def __init__(self, routes: Mapping[str, R], *, forbidden: Iterable[str]) -> None:
        self._routes = dict(routes)
        self._loosened = {loosened(prefix): prefix for prefix in routes}
        self._forbidden = frozenset(loosened(path).rstrip("/") or "/" for path in forbidden)

    def find(self, target: Target) -> tuple[str, R] | Refusal:
        """Return the prefix and the route of a checked path, or why there is none."""
        path = target.path.decode("ascii")
        loose = loosened(path)
        if not self._forbidden.isdisjoint(_prefixes(loose)):
            return Refusal(
                reason=Reason.ROUTE_UNKNOWN, detail="The path is one of the backend's authentication routes."
            )
        prefix = next((one for one in _prefixes(path) if one in self._routes), None)
        other = next((self._loosened[one] for one in _prefixes(loose) if one in self._loosened), None)
        if prefix is None:
            return Refusal(
                reason=Reason.ROUTE_UNKNOWN, detail="No prefix of bff.proxy.routes covers the path."
            )
        if prefix != other:
            # a backend that ignores the letter case or ";parameters" would serve it by the rules of the wrong route
            return _refused(f"A careless backend would read the path as one below {other}, not {prefix}.")
        return prefix, self._routes[prefix]
