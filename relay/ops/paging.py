"""The query parameters of the operators' lists."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from relay.core.errors import MalformedError

DEFAULT_ROWS: Final = 100
MAX_ROWS: Final = 1000
"""Most rows of one page. A page is made on the event loop: 1000 rows of 20,000 connections take 15 ms."""

_NUMBER = re.compile("[0-9]{1,18}", re.ASCII)


def check_names(query: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse a query with a parameter that is not among `names`.

    Raises:
        MalformedError: with the unknown parameter and the known ones.
    """
    if unknown := sorted(query.keys() - set(names)):
        known = f"{', '.join(names[:-1])} and {names[-1]}"
        raise MalformedError(f"Unknown parameter: {unknown[0][:40]!r}. There are {known}.")


def read_limit(query: Mapping[str, str], *, default: int = DEFAULT_ROWS, most: int = MAX_ROWS) -> int:
    """Return the parameter `limit`, the number of rows.

    Raises:
        MalformedError: if it is not a number from 1 to `most`.
    """
    text = query.get("limit", str(default))
    if not _NUMBER.fullmatch(text) or not 0 < int(text) <= most:
        raise MalformedError(f"limit is a number from 1 to {most}.")
    return int(text)


def read_number(query: Mapping[str, str], name: str) -> int | None:
    """Return a parameter that is a number, or None without it.

    Raises:
        MalformedError: if it is not a number of at most 18 digits.
    """
    text = query.get(name)
    if text is not None and not _NUMBER.fullmatch(text):
        raise MalformedError(f"{name} is a number.")
    return None if text is None else int(text)
