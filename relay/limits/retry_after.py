"""How long a refused client is told to wait."""

import math
import secrets

SPREAD_S = 4.0
"""The least spread: 15,000 browsers over four seconds are as many as a node can accept."""


def jittered(seconds: float = 1.0) -> float:
    """Return a random wait: at least `seconds`, at most twice as long or `SPREAD_S` longer.

    Clients that were refused together obey Retry-After together. With the same wait for all, the same crowd would be
    back a moment later (a reconnect storm).
    """
    return seconds + max(seconds, SPREAD_S) * secrets.randbelow(1000) / 1000


def retry_after(seconds: float) -> str:
    """Return the value of a Retry-After header: whole seconds, rounded up, at least one (RFC 9110 §10.2.3)."""
    return str(max(1, math.ceil(seconds)))
