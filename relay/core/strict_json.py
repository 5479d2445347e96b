"""Strict JSON (RFC 8259 in UTF-8, with unique names as in RFC 7493).

A text that two parsers could read differently is refused. Each function raises ValueError with a short reason in lower
case, which can end a sentence.
"""

import json
import math
from typing import Any, Final, NoReturn

import msgspec

MAX_DIGITS: Final = 32
"""Most digits of a whole number in `parse_object`. 64-bit numbers have 20. The time to read one is quadratic."""

_SAFE_DIGITS: Final = 308
"""A whole number with so many digits fits in a 64-bit float, whatever they are."""
_SHORT: Final = 308
"""Bytes of a value that `parse` tries to write again: a price. A longer text is parsed twice if that fails."""
_SHORT_OBJECT: Final = 4096
"""Bytes of an object that `parse_object` tries to write again: the payload of a token."""
_ONLY_DIGITS: Final = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_TOO_MANY: Final = b"0" * (MAX_DIGITS + 1)


class _NotStrictError(ValueError):
    pass


def parse(data: bytes) -> Any:
    """Parse any JSON value in UTF-8 that each usual parser reads. Use it for a body that is passed on unchanged.

    A name must not appear twice in one object. NaN and Infinity are refused, and so are numbers beyond a 64-bit float
    (`1e400`): Go, Rust and msgspec refuse them, and Python makes infinity of them. Text must be valid Unicode:
    Rust and msgspec refuse a lone surrogate, and Python can't write it again.

    Raises:
        ValueError: for anything else.
    """
    if len(data) <= _SHORT and (value := _shortest(data)) is not None:
        return value
    return _parse(data, _finite_numbers)


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object whose values the relay uses. It is as strict as `parse`, and bounds whole numbers too.

    Raises:
        ValueError: for anything else.
    """
    value = None
    if len(data) <= _SHORT_OBJECT and _TOO_MANY not in data.translate(_ONLY_DIGITS):
        value = _shortest(data)
    if value is None:
        value = _parse(data, _bounded_numbers)
    if not isinstance(value, dict):
        raise _NotStrictError("not a JSON object")
    return value


def _shortest(data: bytes) -> Any:
    """Return a value that is in its shortest form; None if it is not, or is null. The strict parser says why then.

    What is written again byte for byte has one reading: no name twice, and no number or text in another spelling. This
    takes a quarter of the time of the strict parser.
    """
    try:
        value = msgspec.json.decode(data)
        return value if msgspec.json.encode(value) == data else None
    except (ValueError, RecursionError, OverflowError):
        return None


def _parse(data: bytes, decoder: json.JSONDecoder) -> Any:
    if data.startswith(b"\xef\xbb\xbf"):
        raise _NotStrictError("it begins with a byte order mark (BOM): send UTF-8 without one")
    try:
        value = decoder.decode(data.decode("utf-8"))
        if b"\\u" in data:  # only an escape can make a lone surrogate: no UTF-8 decodes to one
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeDecodeError as error:
        raise _NotStrictError(f"not UTF-8 (at byte {error.start})") from None
    except UnicodeEncodeError:
        raise _NotStrictError("a text has half of a surrogate pair, which is not Unicode") from None
    except RecursionError:
        raise _NotStrictError("nested too deeply") from None


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _NotStrictError("a name appears twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise _NotStrictError(f"{name} is not JSON: use null or a string")


def _whole(text: str) -> int:
    if len(text.removeprefix("-")) > MAX_DIGITS:
        raise _NotStrictError(f"a whole number has more than {MAX_DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise _NotStrictError("a number does not fit in a 64-bit float: use a string")
    return number


def _finite_whole(text: str) -> int:
    if len(text) > _SAFE_DIGITS:
        _finite(text)
    return int(text)


_finite_numbers = json.JSONDecoder(
    object_pairs_hook=_unique_names,
    parse_constant=_no_constant,
    parse_int=_finite_whole,
    parse_float=_finite,
)
_bounded_numbers = json.JSONDecoder(
    object_pairs_hook=_unique_names, parse_constant=_no_constant, parse_int=_whole, parse_float=_finite
)
