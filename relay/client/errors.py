"""The client's exceptions: what a relay, or the network, refused.

    ClientError
    ├── RefusedError          the relay said no: code, message, status, retryable, retry_after_s
    │   ├── TokenError        the issuer gave no token
    │   ├── HandshakeError    the stream refused the WebSocket handshake
    │   └── PublishError      a publication was not accepted
    │       ├── HaltedError   publishing stopped before this one (in `relay.client.publishing.send_queue`)
    │       └── BatchError    publishing stopped in the middle of many (in `relay.client.publisher`)
    └── StreamClosedError     the stream was closed and a reconnect can't work; `.code`, `.text`

A `RefusedError` with `retryable` true reaches the caller only after all allowed attempts. No text of these exceptions
contains a token or a key, because such texts end up in logs.
"""

from relay.core.errors import RelayError


class ClientError(RelayError):
    """Base of the exceptions that a relay or the network causes."""


class RefusedError(ClientError):
    """A request was refused.

    `code` is the relay's short public code, or one of the client's own: `unreachable` (no connection, or no answer in
    time) and `unexpected_answer` (the server is not a relay). `status` is the HTTP status, or None without a response.
    `retry_after_s` is the wait that the relay asked for, in seconds.
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
    """The stream refused the WebSocket handshake, and another attempt would be refused as well."""


class PublishError(RefusedError):
    """A publication was not accepted. If `retryable` is true, it is unknown whether it was stored."""


class StreamClosedError(ClientError):
    """The stream was closed and a reconnect can't work. `code` and `text` are those of the close frame."""

    def __init__(self, code: int, text: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.text = text
