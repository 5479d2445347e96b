"""Strict JSON (RFC 8259 in UTF-8, with unique names as in RFC 7493).

A text that two parsers could read differently is refused. Each function raises ValueError with a short reason in lower
case, which can end a sentence.
"""

import json
import math
from typing import Any, Final, NoReturn

MAX_DIGITS: Final = 32
"""Most digits of a whole number in `parse_object`. 64-bit numbers have 20. The time to read one is quadratic."""


class _NotStrictError(ValueError):
    pass


def parse(data: bytes) -> Any:
    """Parse any JSON value in UTF-8. A name must not appear twice in one object. NaN and Infinity are refused.

    Numbers have only the bounds of Python. Use it for a body that is passed on unchanged.

    Raises:
        ValueError: for anything else.
    """
    return _parse(data, _any_numbers)


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object whose values the relay uses. Numbers are bounded too, and text must be valid Unicode.

    Raises:
        ValueError: for anything else.
    """
    value = _parse(data, _bounded_numbers)
    if not isinstance(value, dict):
        raise _NotStrictError("not a JSON object")
    if b"\\u" in data:
        # An escaped lone surrogate can be parsed, but it can't be encoded when the value is written again.
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeError:
            raise _NotStrictError("not valid Unicode") from None
        except RecursionError:
            raise _NotStrictError("nested too deeply") from None
    return value


def _parse(data: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _NotStrictError(f"not UTF-8 (at byte {error.start})") from None
    except RecursionError:
        raise _NotStrictError("nested too deeply") from None
    except (_NotStrictError, json.JSONDecodeError):
        raise
    except ValueError:  # Python does not read whole numbers with more than 4300 digits
        raise _NotStrictError("a number has thousands of digits: use a string") from None


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _NotStrictError("a name appears twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise _NotStrictError(f"{name} is not JSON: use null or a string")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _NotStrictError(f"a whole number has more than {MAX_DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise _NotStrictError("a number is out of range")
    return number


_any_numbers = json.JSONDecoder(object_pairs_hook=_unique_names, parse_constant=_no_constant)
_bounded_numbers = json.JSONDecoder(
    object_pairs_hook=_unique_names, parse_constant=_no_constant, parse_int=_whole, parse_float=_finite
)
