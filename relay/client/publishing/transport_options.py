"""What both transports of a publisher are told, and the errors that they have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field

from relay.client.backoff import Backoff
from relay.client.errors import PublishError
from relay.client.publishing.send_queue import SendQueue

Report = Callable[[PublishError, float], None]
"""Is told why there is no connection, and after how many seconds the next attempt follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """How a transport sends the messages of `queue` to `url`, the relay's internal http(s) address.

    `attempts`, `timeout_s` and `backoff` are those of `Publisher`.
    """

    url: str
    key: str = field(repr=False)
    queue: SendQueue
    attempts: int
    timeout_s: float
    backoff: Callable[[], Backoff]
    report: Report

    def unreachable(self, why: str) -> PublishError:
        """Return the error of an attempt that got no answer."""
        return PublishError(
            "unreachable", f"The relay at {self.url} can't be reached: {why}.", retryable=True
        )

    def not_a_relay(self, *, status: int) -> PublishError:
        """Return the error of an answer that no relay gives. A proxy may have given it."""
        return PublishError(
            "unexpected_answer",
            f"The server at {self.url} does not answer like a relay's internal address.",
            status=status,
            retryable=True,
        )
