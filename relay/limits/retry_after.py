"""How long a refused client is told to wait. Never the same for all.

Clients that were refused together obey Retry-After together, and a second later the same crowd is back
(a reconnect storm). So every wait is spread over as long again, and over four seconds at least.
"""

import math
import secrets

SPREAD_S = 4.0
"""The least spread: 15,000 browsers over four seconds are as many as a node can let in."""


def jittered(seconds: float) -> float:
    """Return a wait of at least `seconds`, at random up to twice as long or `SPREAD_S` longer."""
    return seconds + max(seconds, SPREAD_S) * secrets.randbelow(1000) / 1000


def retry_after(seconds: float) -> str:
    """Return the value of Retry-After: whole seconds, at least one (RFC 9110 §10.2.3), jittered."""
    return str(max(1, math.ceil(jittered(seconds))))
