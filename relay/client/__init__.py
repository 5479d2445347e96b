"""The Python client: `Publisher` for backends, `Subscriber` and `fetch_token` for readers of prices.

It uses the relay's public sockets only, like any other client.
"""

from relay.client.backoff import Backoff
from relay.client.errors import (
    ClientError,
    HandshakeError,
    PublishError,
    RefusedError,
    StreamClosedError,
    TokenError,
)
from relay.client.events import Closed, Event, Gap, RefreshFailed
from relay.client.frames import (
    Acknowledged,
    Problem,
    Refreshed,
    Rejected,
    Snapshot,
    Status,
    Subscribed,
    TokenExpiring,
    Unsubscribed,
    Update,
    Welcome,
)
from relay.client.issuer import ScopedToken, fetch_token
from relay.client.publisher import BatchError, Publisher
from relay.client.publishing.messages import Message
from relay.client.receipts import Position, Receipt, Result
from relay.client.subscriber import Subscriber
from relay.core.errors import ConfigurationError

__all__ = [
    "Acknowledged",
    "Backoff",
    "BatchError",
    "ClientError",
    "Closed",
    "ConfigurationError",
    "Event",
    "Gap",
    "HandshakeError",
    "Message",
    "Position",
    "Problem",
    "PublishError",
    "Publisher",
    "Receipt",
    "RefreshFailed",
    "Refreshed",
    "RefusedError",
    "Rejected",
    "Result",
    "ScopedToken",
    "Snapshot",
    "Status",
    "StreamClosedError",
    "Subscribed",
    "Subscriber",
    "TokenError",
    "TokenExpiring",
    "Unsubscribed",
    "Update",
    "Welcome",
    "fetch_token",
]
