"""The name of an account, in the form in which log-ins are counted.

Backends treat several spellings of a name as one account: `Bob@…`, with full-width letters, or with a zero-width
character in it. If each spelling had a limit of its own, passwords could be guessed without one.
"""

import hashlib
import hmac
import unicodedata
from typing import Final

_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Characters that are drawn as nothing and are not of category Cf: default ignorable ones of Unicode."""


def name_hmac(key: bytes, name: str) -> str:
    """Return the keyed hash of an account's name: the same one for all its spellings."""
    return hmac.new(key, f"name:{counted_name(name)}".encode(), hashlib.sha256).hexdigest()[:32]


def counted_name(name: str) -> str:
    """Return a name without its letter case, invisible characters, white space around it and forms of compatibility.

    It is NFKC_Casefold of Unicode (UAX #31), but for a few rare characters. It is for counting alone: the backend gets
    the name as it was typed.
    """
    visible = "".join(character for character in name if not _is_invisible(character))
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold()).strip()


def _is_invisible(character: str) -> bool:
    return (
        unicodedata.category(character)
        == "Cf"  # zero-width and directional marks, the soft hyphen, the BOM, tags
        or character in _INVISIBLE
        or "\u180b" <= character <= "\u180f"  # Mongolian variation selectors
        or "\ufe00" <= character <= "\ufe0f"  # variation selectors
        or "\U000e0100" <= character <= "\U000e01ef"
    )
