"""Names that a question gives: one that nobody knows is a mistake of the question, and not the answer "no"."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

from relay.cli.options import config_path
from relay.cli.output import printable
from relay.core.errors import ConfigurationError

LISTED = 10
"""Names that an error lists if none is near."""


def check_endpoint(name: str, in_log: Collection[str], *, config: Path | None, of_settings: bool) -> None:
    """Check the name of an endpoint against those that the log names, and those of the settings.

    `of_settings` is False for files of another machine, which this folder's settings say nothing about.

    Raises:
        ConfigurationError: if it is the name of no endpoint.
    """
    known = set(in_log)
    if name in known:
        return
    path = config_path(config) if config or of_settings else None
    if path is not None:
        from relay.settings.load import load

        known |= load(path).endpoints.keys()
    if name not in known:
        raise ConfigurationError(unknown("an endpoint", name, known))


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
