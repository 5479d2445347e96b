"""The ends of processes that were killed and whose log nobody has continued yet.

A process that continues the log of a killed one begins with a record that says so (`unclean_end`). The workers of a
machine take the lowest numbers, so after a rolling restart the log of a killed worker may wait for that for days. Until
then its connections would look open.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from relay.audit.files import is_written, process_number
from relay.audit.query.records import ChainFields, EventFields, Record, RelayFields
from relay.core.errors import RelayError
from relay.core.events import Action


def ends_of_killed(chains: Sequence[Sequence[Path]], *, at: str) -> list[Record]:
    """Return the record that would follow each chain of a killed process at the time `at`, which is now.

    The files are those of this machine: the lock tells whether a process lives. A file that can't be read is left out,
    because the questions say what is wrong with it.
    """
    return [
        Record(
            event=EventFields(action=Action.AUDIT_GAP),
            at=at,
            relay=RelayFields(unclean_end=True, chain=ChainFields(writer=writer)),
        )
        for newest in (chain[-1] for chain in chains)
        if process_number(newest) and not is_written(newest)
        for writer in _writer_of_unclosed(newest)
    ]


def _writer_of_unclosed(path: Path) -> list[str]:
    """Return the writer of a chain that does not end as a process that stops in order ends it."""
    from relay.audit.logfile import (
        read_end,
    )  # it brings the signatures: a third of the CPU of a short question

    with suppress(OSError, RelayError), path.open("rb", buffering=0) as file:
        end = read_end(file.fileno(), path)
        if end.head is not None and not end.closed:
            return [end.head.writer]
    return []
