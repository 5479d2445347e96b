"""The records with anomalies."""

from collections.abc import Iterable

from relay.audit.query.records import Record


def marked(records: Iterable[Record], *, marks: Iterable[str] | None = None) -> list[Record]:
    """Return the records with anomalies, or with one of `marks`."""
    wanted = None if marks is None else set(marks)
    return [
        record
        for record in records
        if record.relay.anomalies and (wanted is None or not wanted.isdisjoint(record.relay.anomalies))
    ]
