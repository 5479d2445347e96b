"""Removes fields from a JSON document. Everything that stays keeps the backend's own characters.

A document that is parsed and written again would change: `1.10` becomes `1.1`, and an id of 20 digits another one in
most languages. So the document is checked by the standard library's parser, and then cut as a text.
"""

import json
import re
from collections.abc import Sequence
from typing import Final, NoReturn

from relay.core.errors import ConfigurationError

MAX_PARTS: Final = 16
"""Parts of a path: deeper ones are mistakes."""

_WHITE: Final = re.compile(r"[ \t\n\r]*")
_TEXT: Final = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_PLAIN: Final = re.compile(rf"{_TEXT}|[^ \t\n\r,\[\]{{}}\"]+")
"""A value that holds no others."""
_MEMBER: Final = re.compile(r'[ \t\n\r]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*')
_ENTRIES: Final = re.compile(rf"(?:[ \t\n\r]*(?:{_PLAIN.pattern})[ \t\n\r]*,)+")
"""Entries of an array that hold no fields, read at once."""

_Paths = tuple[tuple[str, ...], ...]


class NotFilterableError(ValueError):
    """The document can't be filtered. The text is a part of a sentence, and quotes nothing of the document."""


class FieldFilter:
    """Removes the fields that `strip` names.

    A name without a dot is removed at every depth. A path like `users.*.score` counts from the root, and `*` is any one
    member or index.
    """

    def __init__(self, strip: Sequence[str]) -> None:
        """Read the names and paths.

        Raises:
            ConfigurationError: if one of them can never be meant.
        """
        for text in strip:
            parts = text.split(".")
            if "" in parts or text == "*" or len(parts) > MAX_PARTS:
                raise ConfigurationError(
                    f"{text!r} is neither a field's name nor a path like users.*.score with at most {MAX_PARTS} parts"
                )
        self._everywhere = frozenset(text for text in strip if "." not in text)
        self._paths: _Paths = tuple(tuple(text.split(".")) for text in strip if "." in text)

    def filter(self, body: bytes) -> bytes:
        """Return the document without the fields.

        Raises:
            NotFilterableError: if it is not one JSON document in UTF-8 in which each member has one name.
        """
        text = _checked(body)
        try:
            return _Cut(text, self._everywhere).document(self._paths).encode("utf-8", "surrogatepass")
        except RecursionError:
            raise NotFilterableError("nested too deeply") from None


class _Cut:
    """One pass over a text that is known to be JSON. `_end` is where the last value ended."""

    def __init__(self, text: str, everywhere: frozenset[str]) -> None:
        self._text = text
        self._everywhere = everywhere
        self._end = 0

    def document(self, paths: _Paths) -> str:
        start = self._white(0)
        kept = self._value(start, paths)
        return self._text[:start] + kept + self._text[self._end :]

    def _value(self, start: int, paths: _Paths) -> str:
        first = self._text[start]
        if first == "{":
            return self._object(start, paths)
        if first == "[":
            return self._array(start, paths)
        plain = _PLAIN.match(self._text, start)
        assert plain is not None  # the parser has read the text before
        self._end = plain.end()
        return plain[0]

    def _object(self, start: int, paths: _Paths) -> str:
        text, kept, at = self._text, list[str](), start + 1
        if text[end := self._white(at)] == "}":
            self._end = end + 1
            return text[start : self._end]
        while True:
            member = _MEMBER.match(text, at)
            assert member is not None  # the parser has read the text before
            name, value_at = member[1], member.end()
            if "\\" in name:
                name = json.loads(f'"{name}"')
            inner, is_whole = _inner(paths, name)
            value = self._value(value_at, inner)
            end = self._white(self._end)
            if not is_whole and name not in self._everywhere:
                kept.append(text[at:value_at] + value + text[self._end : end])
            at = end + 1
            if text[end] == "}":
                self._end = at
                return "{" + ",".join(kept) + "}"

    def _array(self, start: int, paths: _Paths) -> str:
        text, kept, index, at = self._text, list[str](), 0, start + 1
        if text[end := self._white(at)] == "]":
            self._end = end + 1
            return text[start : self._end]
        while True:
            if not paths and (run := _ENTRIES.match(text, at)):
                kept.append(text[at : run.end() - 1])
                at = run.end()
            first = self._white(at)
            inner, is_whole = _inner(paths, str(index))
            value = self._value(first, inner)
            end = self._white(self._end)
            if not is_whole:
                kept.append(text[at:first] + value + text[self._end : end])
            index += 1
            at = end + 1
            if text[end] == "]":
                self._end = at
                return "[" + ",".join(kept) + "]"

    def _white(self, at: int) -> int:
        """Return where the white space at `at` ends."""
        found = _WHITE.match(self._text, at)
        assert found is not None  # it may be empty
        return found.end()


def _inner(paths: _Paths, name: str) -> tuple[_Paths, bool]:
    """Return the paths that go on below a member or an index, and whether it is itself the end of one."""
    if not paths:
        return paths, False
    rest = [path[1:] for path in paths if path[0] in ("*", name)]
    return tuple(path for path in rest if path), () in rest


def _checked(body: bytes) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        raise NotFilterableError("begins with a byte order mark")
    try:
        text = body.decode("utf-8")
        _PARSER.decode(text)
    except UnicodeDecodeError:
        raise NotFilterableError("not UTF-8") from None
    except RecursionError:
        raise NotFilterableError("nested too deeply") from None
    except NotFilterableError:
        raise
    except ValueError:
        raise NotFilterableError("not JSON") from None
    return text


def _unique(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        # parsers differ in which of the two they take, so the one that is removed could be the other one
        raise NotFilterableError("a name appears twice in one object")


def _no_constant(name: str) -> NoReturn:
    raise NotFilterableError(f"{name} is not JSON")


_PARSER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=len, parse_float=len
)
"""Reads a document and keeps nothing of it: numbers of any length cost no arithmetic."""
