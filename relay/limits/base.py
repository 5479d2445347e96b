"""The port of rate limits: counts of requests in sliding windows.

`relay.limits.memory` counts in this process. An adapter that shares the counts between nodes must pass
the same tests (`tests/limits/test_contract.py`).
"""

from collections.abc import Callable
from typing import Protocol


class RequestCounts(Protocol):
    """The counts of one limit, by key: an address, a session, an account.

    Guarantees: within one window a key gets at most the limit's number of requests; a request that is refused is not
    counted; keys don't influence each other; the memory that it needs is bounded, however many keys come.
    """

    async def hit(self, key: str) -> float:
        """Count a request of `key` and return 0.0, or return the seconds to wait if the limit refuses it."""
        ...

    async def give_back(self, key: str) -> None:
        """Take back one request of `key` that `hit` has counted. Without a counted one nothing happens."""
        ...


MakeCounts = Callable[[str, str], RequestCounts]
"""Makes the counts of a limit. The arguments are its name, which is unique, and its rate, like "30/minute"."""
