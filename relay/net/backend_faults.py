"""Answers of the backend that can't be used: whether waiting helps, and the warning about those where it does not.

An outage passes, so it is 503 and clients try again. An answer of another form (a wrong path, a page in HTML, a missing
member) comes again each time. It is 502, which clients do not repeat, and the process's log says what came and what was
expected.
"""

import re
import time
from typing import TYPE_CHECKING, Final

import structlog

from relay.core.errors import Reason, UnavailableError
from relay.core.log_limit import LogLimit

if TYPE_CHECKING:  # the client reports such answers too
    from relay.net.http_client import UrlResponse

_log = structlog.get_logger("relay")
_limit = LogLimit()

_NUMBERED: Final = re.compile(r"[^\s,:]*\d[^\s,:]*")
"""A word with a digit in it."""
TEMPORARY: Final = frozenset({408, 421, 425, 429})
"""Statuses below 500 that RFC 9110 §15.5 and RFC 6585 define as passing."""


def backend_fault(name: str, *, came: str, expected: str, setting: str) -> UnavailableError:
    """Log a warning, once a minute for each kind of fault, and return the error to raise: 502, not to be repeated.

    `name` begins the sentence ("The backend's log-in"). `came` describes the answer and must quote nothing of it:
    a body may hold tokens. `setting` is the setting that a reader of the log should compare.
    """
    # lengths, times and ids differ each time, and are no other fault; the status stays
    kind = came[:3] + _NUMBERED.sub("", came[3:])
    left_out = _limit.admit((name, expected, setting, kind), time.monotonic())
    if left_out is not None:
        _log.warning(
            "the backend's answer can't be used",
            call=name,
            came=came,
            expected=expected,
            setting=setting,
            left_out=left_out,
        )
    return UnavailableError(
        Reason.BACKEND_FAULT, f"{name} answered with {came}, and {expected} was expected.", setting=setting
    )


def refuse_status(name: str, answer: "UrlResponse", *, expected: str, setting: str) -> UnavailableError:
    """Return the error for an answer whose status is not one of those that the caller knows."""
    if answer.status >= 500 or answer.status in TEMPORARY:
        return UnavailableError(
            Reason.BACKEND_UNAVAILABLE, f"{name} answered {answer.status}.", setting=setting
        )
    return backend_fault(name, came=describe(answer), expected=expected, setting=setting)


def describe(answer: "UrlResponse") -> str:
    """Return what came, without any of its content: status, media type and length."""
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip()[:60] or "no media type"
    return f"{answer.status}, {media_type}, {len(answer.body)} bytes"
