"""How long a connection lives, and how often it may get a price, as its token and its endpoint allow."""

import random
import time

from relay.stream.gate import Admitted

AGE_SPREAD = 0.1
"""Part of the age limit by which connections end earlier than they must, each by another part of it."""


def floor_ms(admitted: Admitted) -> int:
    """Return the shortest interval that the endpoint and the token allow."""
    return admitted.claims.options.narrowed(admitted.attempt.endpoint.options).min_interval_ms


def unix_lead() -> float:
    """Return what to add to a time of `time.monotonic` to get Unix seconds."""
    return time.time() - time.monotonic()


def lifetime_s(max_age_s: float) -> float:
    """Return how long a connection lives between refreshes. Drawn once, so that a refresh never brings the end nearer.

    A random part of the age limit is left out. Otherwise all clients that came back in one moment, after a restart,
    would end in one moment too.
    """
    return max_age_s - random.random() * max_age_s * AGE_SPREAD  # noqa: S311  # no secret, and for each connection


def expiry(admitted: Admitted, now: float, lifetime_s: float) -> float:
    """Return when a connection ends: near its endpoint's age limit, or with its log-in if that is earlier.

    The time is one of `time.monotonic`.
    """
    session_end = admitted.claims.session_expires_at
    end = now + lifetime_s
    return end if session_end is None else min(end, session_end - unix_lead())
