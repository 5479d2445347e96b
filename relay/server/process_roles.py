"""The role of a process: a whole relay, or one side of it, so that only the issuer holds the private key.

An issuer has the public listener (tokens, log-in, JWKS). A stream has the WebSocket listener and publishing. Both have
the internal listener.

Two processes share only keys. A log-out at the issuer does not close sockets of another process, and a token that was
used at one stream can be used again at another. So run one issuer with one stream, and send each revocation to both.
Several streams need a shared store, which this version does not have.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # `relay --help` imports this module
    from relay.settings.load import Settings


class Role(StrEnum):
    """The values of `relay serve --role`."""

    ALL = "all"
    ISSUER = "issuer"
    STREAM = "stream"

    @property
    def issues(self) -> bool:
        """Whether this process signs tokens. It then needs the private key."""
        return self is not Role.STREAM

    @property
    def streams(self) -> bool:
        """Whether this process accepts sockets and publications."""
        return self is not Role.ISSUER


def listeners(settings: "Settings", role: Role) -> dict[str, str]:
    """Return the addresses of the listeners that a process of this role has, by their names in `[listen]`."""
    listen = settings.listen
    named = (
        ("http", listen.http, role.issues),
        ("stream", listen.stream, role.streams),
        ("internal", listen.internal, True),
    )
    return {name: address for name, address, wanted in named if wanted}


SPLIT_NOTE: Final = (
    "Processes of different roles don't share used tokens and revocations: run one stream only, and send each "
    "revocation to the issuer and to the stream."
)
"""The note of `relay config check` about settings for processes of different roles."""
