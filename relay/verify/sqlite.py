"""Single use in a SQLite file: for a service of several worker processes on one machine, and over its restarts.

The relay's own store does the work: one atomic insert, on a thread of its own, group-committed. In a module of its
own, so that who needs no database does not import one.
"""

from pathlib import Path
from typing import Self

from relay.core.errors import ConfigurationError
from relay.state.sqlite import SqliteState


class SqliteSingleUse:
    """Used tokens in one file, shared by all processes that open it. Create it with `open`, end it with `aclose`."""

    def __init__(self, state: SqliteState) -> None:
        """Use an open store; `open` is the usual way."""
        self._state = state

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file at `path`.

        Raises:
            ConfigurationError: if it can't be opened or written, or is no SQLite file.
        """
        try:
            return cls(SqliteState.open(path))
        except ConfigurationError as error:
            # the setting that the relay's own sentence begins with is none of this service
            raise ConfigurationError(str(error).removeprefix("engine.state_path: ")) from None

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """See `relay.verify.SingleUse.claim`."""
        return await self._state.claim(jti, expires_at=expires_at)

    async def aclose(self) -> None:
        """Write what waits and close the file."""
        await self._state.aclose()
