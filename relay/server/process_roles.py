"""The role of a process: a whole relay, or one side of it. Only the issuer holds the private key.

An issuer has the public listener (tokens, log-in, JWKS). A stream has the WebSocket listener and publishing. An ingest
has publishing alone. All have the internal listener.

With an engine (`engine.url`) there may be any number of each: used tokens, revocations and publications are shared.
Without one, two processes share only keys. A log-out at the issuer does not close sockets of another process then, and
a token that was used at one stream can be used again at another. So run one issuer with one stream, and send each
revocation to both.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from relay.core.errors import ConfigurationError

if TYPE_CHECKING:  # `relay --help` imports this module
    from relay.settings.load import Settings


class Role(StrEnum):
    """The values of `relay serve --role`."""

    ALL = "all"
    ISSUER = "issuer"
    STREAM = "stream"
    INGEST = "ingest"

    @property
    def issues(self) -> bool:
        """Whether this process signs tokens. It then needs the private key."""
        return self in (Role.ALL, Role.ISSUER)

    @property
    def streams(self) -> bool:
        """Whether this process accepts sockets."""
        return self in (Role.ALL, Role.STREAM)

    @property
    def ingests(self) -> bool:
        """Whether this process accepts publications."""
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


def role_of(settings: "Settings", role: Role | None) -> Role:
    """Return the role of the option, or that of the settings.

    Raises:
        ConfigurationError: if the settings lack what the role needs.
    """
    role = role or Role(settings.listen.role)
    if role is Role.INGEST:
        if not settings.engine.url.get_secret_value():
            raise ConfigurationError(
                "The role ingest needs engine.url: without an engine, its publications reach no other process. Set it "
                'to a Redis or Valkey, like "redis://127.0.0.1:6379", or use the role stream.'
            )
        if not settings.publishers:
            raise ConfigurationError(
                "The role ingest needs a publisher: write a section [publishers.NAME], which `relay keys publisher` "
                "prints."
            )
    return role


SPLIT_NOTE: Final = (
    "Processes of different roles don't share used tokens and revocations: run one stream only, and send each "
    "revocation to the issuer and to the stream."
)
"""The note of `relay config check` about settings for processes of different roles."""
