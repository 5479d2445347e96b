"""The hub's clock: what lasts is measured on it. See "Clocks" in relay/core/README.md."""

import time


def steady_ms() -> int:
    """Return milliseconds of a clock that nobody can set."""
    return time.monotonic_ns() // 1_000_000
