"""Names that a question gives: one that nobody knows is a mistake of the question, and not the answer "no"."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from relay.audit.query.records import Record
from relay.cli.audit.input import Log
from relay.cli.options import config_path
from relay.cli.output import printable
from relay.core.errors import ConfigurationError

LISTED = 10
"""Names that an error lists if none is near."""


class Endpoints:
    """The endpoints of the settings, if there are any, and those that a log's records name."""

    def __init__(self, config: Path | None, files: Sequence[Path] | None) -> None:
        """Read the settings, but not those of this folder for files of another machine."""
        self._known: set[str] = set()
        path = config_path(config) if config or not files else None
        if path is not None:
            from relay.settings.load import load

            self._known |= load(path).endpoints.keys()

    def seen_in(self, records: Iterable[Record]) -> Iterator[Record]:
        """Return the records, and note their endpoints."""
        for record in records:
            if record.relay.endpoint:
                self._known.add(record.relay.endpoint)
            yield record

    def add(self, names: Iterable[str]) -> None:
        """Add the endpoints that the log names."""
        self._known.update(names)

    def check(self, name: str) -> None:
        """Check a name, after the records were read.

        Raises:
            ConfigurationError: if it is the name of no endpoint.
        """
        if name not in self._known:
            raise ConfigurationError(unknown("an endpoint", name, self._known))


def names_in(log: Log) -> set[str]:
    """Return the users, sessions, tokens and connections in a log."""
    if (index := log.open_index()) is not None:
        from relay.audit.index import questions

        return questions.names(index, log.reader)
    return {
        name
        for record in log.reader.records(log.lines())
        for name in (
            record.user.id,
            record.relay.session.ref,
            record.relay.token.jti,
            record.relay.connection.id,
        )
        if name
    }


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not in `known`, with the nearest names."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    begin = f"Neither the settings nor the log know {kind} {printable(name)!r}."
    if near:
        return f"{begin} Did you mean {' or '.join(map(printable, near))}?"
    if 0 < len(names) <= LISTED:
        return f"{begin} There are {', '.join(map(printable, names))}."
    return begin
