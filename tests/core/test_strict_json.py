"""Strict JSON: texts in their shortest form take a faster way, which must give the same answer."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
TEXTS = st.builds(
    lambda value, separators, ascii_only: json.dumps(value, separators=separators, ensure_ascii=ascii_only),
    VALUES,
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
).map(lambda text: text.encode("utf-8", "surrogatepass"))
PIECES = st.sampled_from(
    [
        b"",
        b'"a":1,',
        b"1",
        b"-0",
        b"e400",
        b"\\ud800",
        b"\\u0061",
        b"\xff",
        b"\xef\xbb\xbf",
        b"NaN",
        b" ",
        b"0",
        b"9" * 309,
    ]
)


def outcome(read: Any, data: bytes) -> tuple[str, str]:
    """Return the kind and the value, or the error."""
    try:
        value = read(data)
    except ValueError as error:
        return "error", str(error)
    return type(value).__name__, repr(value)


def strictly(read: Callable[[bytes], Any], data: bytes) -> Any:
    """Read with the strict parser alone: white space at the end takes a text off the faster way."""
    return read(data + b" " * 400)


@given(text=TEXTS, at=st.integers(0, 60), piece=PIECES, cut=st.integers(0, 3))
@example(text=b'{"a":1}', at=1, piece=b'"a":1,', cut=0)
@example(text=b"1", at=1, piece=b"9" * 309, cut=0)
@example(text=b"1", at=1, piece=b"e400", cut=0)
@example(text=b"1", at=1, piece=b"e22", cut=0)
def test_the_faster_way_gives_the_same_answer(text: bytes, at: int, piece: bytes, cut: int) -> None:
    """For any text with any edit: the same value, or the same error but for the place that it names."""
    data = text[:at] + piece + text[at + cut :]
    for read in (strict_json.parse, strict_json.parse_object):
        fast, strict = outcome(read, data), outcome(partial(strictly, read), data)
        assert fast == strict or fast[0] == strict[0] == "error"


@pytest.mark.parametrize("data", [b'{"a":1,"a":2}', b"9" * 309, b"1e400", b"NaN", b'"\\ud800"', b"\xff"])
def test_what_parsers_read_differently_is_refused(data: bytes) -> None:
    """Neither way lets it through."""
    with pytest.raises(ValueError, match=r"."):
        strict_json.parse(data)
    with pytest.raises(ValueError, match=r"."):
        strict_json.parse_object(b'{"v":%b}' % data)


@pytest.mark.parametrize("number", [b"9" * 32, b"-" + b"9" * 32])
def test_an_object_has_no_longer_numbers_on_either_way(number: bytes) -> None:
    """A whole number of 32 digits is read, and one of 33 is refused, however short the object is."""
    for read in (strict_json.parse_object, partial(strictly, strict_json.parse_object)):
        assert read(b'{"a":[%b]}' % number) == {"a": [int(number)]}
        with pytest.raises(ValueError, match="more than 32 digits"):
            read(b'{"a":[%b9]}' % number)
