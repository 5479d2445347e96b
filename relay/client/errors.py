"""What can go wrong between a Python program and a relay, as exceptions whose type says whose turn it is.

    ClientError
    ├── RefusedError          the relay said no: code, message, status, retryable, retry_after_s
    │   ├── TokenError        the issuer gave no token
    │   ├── HandshakeError    the stream refused the WebSocket handshake
    │   └── PublishError      a publication was not taken
    │       ├── HaltedError   publishing stopped before this one (in `relay.client.publishing.outbox`)
    │       └── BatchError    publishing stopped in the middle of many (in `relay.client.publisher`)
    └── StreamClosedError     the stream was closed for good; `.code`, `.text`

A `RefusedError` that reaches the caller with `retryable` true was already tried again as often as allowed. No
text of these exceptions has a token or a key in it: they end up in logs.
"""

from relay.core.errors import RelayError


class ClientError(RelayError):
    """Base of everything that the client raises because of what the relay, or the network, did."""


class RefusedError(ClientError):
    """A request was not granted.

    `code` is the relay's short public code, or one of the client's own: `unreachable` (no connection, or no
    answer in time) and `unexpected_answer` (whoever answered is not a relay). `status` is the HTTP status,
    None where there was none. `retry_after_s` is how long the relay asked to wait, in seconds.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class TokenError(RefusedError):
    """The issuer gave no scoped token."""


class HandshakeError(RefusedError):
    """The stream refused the WebSocket handshake in a way that another attempt would not change."""


class PublishError(RefusedError):
    """A publication was not taken. Nothing tells whether one that is `retryable` was stored."""


class StreamClosedError(ClientError):
    """The stream was closed and reconnecting is no use. `code` and `text` are those of the close frame."""

    def __init__(self, code: int, text: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.text = text
