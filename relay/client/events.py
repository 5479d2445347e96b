"""The events of a subscription: frames of the server, and events that only the client can know.

The client's own events have a `type` in JSON, as the server's frames have, so that `relay listen` writes both.
"""

import msgspec

from relay.client.frames import (
    Problem,
    Refreshed,
    Snapshot,
    Status,
    Subscribed,
    TokenExpiring,
    Unsubscribed,
    Update,
    Welcome,
)


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """There is no connection now, every value is stale, and the next attempt comes in `retry_in_s` seconds.

    `code` is the close code; 1006 means that the link broke or was never open. `status` is the HTTP status of a
    refused handshake or token request.
    """

    code: int
    reason: str
    retry_in_s: float
    status: int | None = None


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag="gap"):
    """Messages of a `stream` channel are lost: those after `seq` of `epoch` and before the next value.

    This event comes only if the relay can't replay them: its history is shorter than the disconnection, or it lost its
    memory. A consumer that needs them must get them from the channel's publisher.
    """

    channel: str
    epoch: str
    seq: int


class RefreshFailed(msgspec.Struct, frozen=True, kw_only=True, tag="refresh_failed"):
    """The connection could not be refreshed, and stays open until its old end.

    The next attempt comes in `retry_in_s` seconds. With None there is none: the relay closes with 4001 at that end, and
    a new token opens a new connection. `status` is the issuer's HTTP status, or None if the relay refused.
    """

    code: str
    reason: str
    retry_in_s: float | None
    status: int | None = None


Event = (
    Welcome
    | Subscribed
    | Unsubscribed
    | Snapshot
    | Update
    | Status
    | Gap
    | Problem
    | TokenExpiring
    | Refreshed
    | RefreshFailed
    | Closed
)
"""The events that a `Subscriber` yields."""
