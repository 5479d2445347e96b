"""Finds the session's own tokens in an answer: they may never reach a script, whatever the backend does.

The tokens are looked for as a text. In JSON documents the escapes that could hide one are undone first.
"""

import re
from collections.abc import Iterable
from typing import Final

MIN_BYTES: Final = 16
"""Shortest token that is looked for. A shorter one is none, and would be found in ordinary answers."""

CUT_BYTES: Final = 8
"""Bytes of a token at an end of a part (206) by which it is found. Fewer are no use, and are in ordinary texts."""

_ESCAPED: Final = re.compile(rb"\\u00([2-7][0-9A-Fa-f])")
_ANCHOR: Final = 4


class TokenSearch:
    """A search for a few tokens, in whole documents or piece by piece over one stream."""

    def __init__(self, tokens: Iterable[str]) -> None:
        found = {token.encode("latin-1", "replace") for token in tokens}
        self._tokens = tuple(token for token in found if len(token) >= MIN_BYTES)
        self._held = b""

    def is_in(self, text: bytes) -> bool:
        """Tell whether a header's value or a piece of a body has one of the tokens as it is."""
        return any(token in text for token in self._tokens)

    def is_in_json(self, document: bytes) -> bool:
        """Tell whether a whole JSON document has one of the tokens, in a name or in a value."""
        if b"\\" in document:
            document = document.replace(b"\\/", b"/")
            if b"\\u00" in document:
                document = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), document)
        return self.is_in(document)

    def feed(self, piece: bytes) -> bytes | None:
        """Return what may go out of the stream so far, or None if it has a token.

        A beginning of a token at the end of the piece is held back, until the next piece or `rest`.
        """
        text = self._held + piece if self._held else piece
        if self.is_in(text):
            return None
        held = max((_beginning(text, token) for token in self._tokens), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held] if held else text

    def is_part(self, body: bytes, *, is_whole: bool) -> bool:
        """Tell whether a part of a document begins in the middle of a token, or lies within one.

        `body` is the whole part, or as much of its beginning as `longest`. A part within a token is refused however
        short it is: a script could ask for the next one. `rest` tells of a token that begins at the end.
        """
        for token in self._tokens:
            if is_whole and body and body in token:
                return True
            at = 0
            while (at := token.find(body[:CUT_BYTES], at + 1)) >= 0 and len(token) - at >= CUT_BYTES:
                if body.startswith(token[at:]):
                    return True
        return False

    @property
    def longest(self) -> int:
        """The length of the longest token."""
        return max(map(len, self._tokens), default=0)

    def rest(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        held, self._held = self._held, b""
        return held


def _beginning(text: bytes, token: bytes) -> int:
    """Return the length of the longest end of `text` that is a beginning of `token`."""
    at = max(0, len(text) - len(token) + 1)
    while (at := text.find(token[:_ANCHOR], at)) >= 0:
        if token.startswith(text[at:]):
            return len(text) - at
        at += 1
    return next((size for size in range(_ANCHOR - 1, 0, -1) if text.endswith(token[:size])), 0)
