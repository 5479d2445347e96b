"""Single use in a SQLite file, for a service with several worker processes on one machine, and over its restarts.

The relay's own store does the work: one atomic insert, on a thread of its own, group-committed. This is a module of its
own, so that a service without a database does not import one.
"""

from pathlib import Path
from typing import Self

from relay.core.errors import ConfigurationError
from relay.state.sqlite import SqliteState


class SqliteSingleUse:
    """Used tokens in one file, shared by all processes that open it. Create it with `open`, close it with `aclose`."""

    def __init__(self, state: SqliteState) -> None:
        """Use an open store; `open` is the usual way."""
        self._state = state

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at `path`, or create it.

        Raises:
            ConfigurationError: if it can't be opened or written, or is not a SQLite file.
        """
        try:
            return cls(SqliteState.open(path))
        except ConfigurationError as error:
            # the message begins with a setting of the relay, which this service does not have
            raise ConfigurationError(str(error).removeprefix("engine.state_path: ")) from None

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """See `relay.verify.SingleUse.claim`."""
        return await self._state.claim(jti, expires_at=expires_at)

    async def aclose(self) -> None:
        """Write waiting tokens and close the file."""
        await self._state.aclose()
