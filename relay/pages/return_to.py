"""The check of `returnTo`, the page to open after a log-in: only a path of the application itself (CWE-601).

Browsers read a URL by the URL standard (https://url.spec.whatwg.org/), which is more tolerant than Python's parsers:
`/\\evil.example`, `/<tab>/evil.example` and `/.//evil.example` leave the origin, or do so after one more redirect.
So a text is refused if it has a character that browsers drop or replace, and its path is resolved as browsers do it.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import quote, unquote

PARAMETER: Final = "returnTo"
MAX_CHARS: Final = 2048
"""Longest page to return to. A Location header and a log's line have to hold it, escaped."""

_DOT = re.compile(r"\.|%2e", re.IGNORECASE)
_PATH_END = re.compile(r"[?#]")
_SAFE: Final = "!#$%&'()*+,/:;=?@[]~"
"""Characters that stay as they are in a Location header: those of RFC 3986, with the `%` of what is escaped already."""


def checked(values: Sequence[str], *, never: Collection[str], default: str = "/") -> str:
    """Return the one value if it is a page of this origin, in ASCII; otherwise `default`.

    Args:
        values: The values of the parameter, unescaped once, as a query parser returns them.
        never: Paths that are refused with all paths below them: those of the log-in and the log-out.
        default: What is returned in place of a value that is missing, comes twice, or is refused.
    """
    if len(values) != 1 or not _is_own_page(values[0], never):
        return default
    return quote(values[0], safe=_SAFE)


def escaped(path: str, query: str) -> str:
    """Return a request's own path and query as the value of a `returnTo` parameter, or "" if it is too long.

    A space in the query is written as `+`, which form parsers read as one: `checked` refuses an escaped space.
    """
    target = f"{path}?{query.replace('%20', '+')}" if query else path
    return quote(target, safe="") if len(target) <= MAX_CHARS else ""


def _is_own_page(text: str, never: Collection[str]) -> bool:
    if len(text) > MAX_CHARS:
        return False
    for form in (text, unquote(text)):
        if not form.startswith("/") or not all(map(_is_plain, form)):
            return False
        path = _PATH_END.split(form, maxsplit=1)[0]
        if path.startswith("//") or _resolved(path).startswith("//"):
            return False
    path = _PATH_END.split(text, maxsplit=1)[0]
    # a router unescapes the path that the browser has resolved; some resolve it once more
    routes = [_route(unquote(_resolved(path))), _route(_resolved(unquote(path)))]
    return not any(route.startswith(f"{own.casefold().rstrip('/')}/") for route in routes for own in never)


def _route(path: str) -> str:
    """Return a path as a router takes it that ignores letter case, empty segments and parameters; `/` ends it."""
    segments = [segment.partition(";")[0] for segment in path.casefold().split("/")]
    return "/" + "".join(f"{segment}/" for segment in segments if segment)


def _is_plain(character: str) -> bool:
    # neither control, format, white-space nor surrogate characters, and no `\`, which browsers read as `/`
    return character.isprintable() and not character.isspace() and character != "\\"


def _resolved(path: str) -> str:
    """Return a path without `.` and `..`, escaped ones too (URL standard §4.4, "path state")."""
    done: list[str] = []
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, 1):
        dots = _DOT.sub(".", segment)
        if dots in (".", ".."):
            if dots == "..":
                del done[-1:]
            if number == len(segments):
                done.append("")
        else:
            done.append(segment)
    return "/" + "/".join(done)
