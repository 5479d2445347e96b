"""What comes out of a subscription: frames of the server, and what only the client can know.

The client's own events have a `type` in JSON like the server's frames, so that `relay listen` writes both.
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

    `code` is the close code, 1006 where the link broke or never came about; `status` the HTTP status of a
    refused handshake or token request.
    """

    code: int
    reason: str
    retry_in_s: float
    status: int | None = None


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag="gap"):
    """Messages of a `stream` channel are lost: those after `seq` of `epoch` and before its next value.

    It is told only when the relay can't replay them: its history is shorter than the time away, or it lost its
    memory. A consumer that must have them asks for them where the channel's publisher keeps them.
    """

    channel: str
    epoch: str
    seq: int


class RefreshFailed(msgspec.Struct, frozen=True, kw_only=True, tag="refresh_failed"):
    """The connection could not be refreshed, and lives on to its old end.

    It is tried again in `retry_in_s` seconds, or not (None): then the relay closes with 4001 at that end, and a
    new token opens a new connection. `status` is the issuer's HTTP status, None where the relay refused.
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
"""Everything that iterating over a `Subscriber` gives."""
