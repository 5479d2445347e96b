"""The rule about the refresh cookie, checked on every answer of the whole suite.

A refresh cookie is cleared at a log-out, for a revoked session, or if it is refused for good, and for nothing else.
The HTTP callers of the tests pass each answer to `check`. Why a session was refused is not in the answer, so `settle`
compares the number of such answers with the audit log when the relay ends.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

_LOG_OUT = "/api/auth/logout"
_MAY_CLEAR = ("/auth/ws-token", "/api/auth/ws-token", "/api/auth/refresh", "/api/auth/me")

_unproven: Counter[int] = Counter()
"""Answers by port that cleared a refresh cookie and are right only if the session was revoked."""


def cleared(set_cookies: Iterable[str]) -> set[str]:
    """Return the names of the cookies that these Set-Cookie headers clear."""
    return {text.partition("=")[0] for text in set_cookies if "max-age=0" in text.lower()}


def _whole(name: str) -> str:
    """Return the name without the number of a chunk."""
    return re.sub(r"\.[0-9]+$", "", name)


def check(port: int, path: str, status: int, set_cookies: Iterable[str]) -> None:
    """Check one answer of the server on `port`."""
    set_cookies = list(set_cookies)
    gone = cleared(set_cookies)
    given = {_whole(text.partition("=")[0]) for text in set_cookies if text.partition("=")[0] not in gone}
    # a cookie that is set in this answer replaces what was there, in chunks or whole
    if not any("refresh" in name and _whole(name) not in given for name in gone):
        return
    path = path.partition("?")[0]
    if path == _LOG_OUT:
        return
    assert path in _MAY_CLEAR or path.startswith("/api/proxy/"), (
        f"{path} answered {status} and cleared the refresh cookie"
    )
    assert status == 401, f"{path} answered {status} and cleared the refresh cookie"
    if path == "/api/auth/refresh":  # calls that come together have one record
        _unproven[port] = max(_unproven[port], 1)
    else:
        _unproven[port] += 1


def settle(port: int, read_records: Callable[[], Iterable[dict[str, Any]]]) -> None:
    """Check that the relay refused as many sessions for good as it cleared refresh cookies outside of log-outs.

    The log is not read if no answer has to be proven: a test may have left a line of it half written.
    """
    unproven = _unproven.pop(port, 0)
    if not unproven:
        return
    revoked = sum(
        record["event"]["action"] == "session.refresh_denied"
        or (
            record["event"]["action"] in ("token.denied", "proxy.denied")
            and record["event"].get("reason") in ("session_revoked", "refresh_refused", "refresh_spent")
        )
        for record in read_records()
    )
    assert unproven <= revoked, "a refresh cookie was cleared for another reason than the rule's"
