"""Which part of the relay a process runs: all of it, or one side, so that only the issuer holds the private key.

An issuer has the public listener (tokens, log-in, JWKS), a stream the WebSocket listener and publishing; both have
the internal one. Two processes share nothing but keys: a log-out at the issuer does not reach sockets elsewhere, and
a token that is used up at one stream is not at another. So one issuer with one stream is safe against replay, but
revocations must be sent to both, and several streams need a store that they share, which this version does not have.
"""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What `relay serve --role` takes."""

    ALL = "all"
    ISSUER = "issuer"
    STREAM = "stream"

    @property
    def issues(self) -> bool:
        """Whether this process signs tokens, and so needs the private key."""
        return self is not Role.STREAM

    @property
    def streams(self) -> bool:
        """Whether this process takes sockets and publications."""
        return self is not Role.ISSUER


SPLIT_NOTE: Final = (
    "Processes of different roles don't hear each other's used tokens and revocations: run one stream only, and send "
    "each revocation to the issuer and to the stream."
)
"""What `relay config check` says where the settings are for split processes."""
