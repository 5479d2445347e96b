"""Who published on which channel: the records of each minute, compared with a count of their own."""

from collections import Counter
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from relay.audit.query.records import Publications, Record, RecordReader
from relay.broker.base import Position
from relay.core.events import MAX_LIST, Event, clip, to_record
from relay.ingest.summaries import PublicationSummary
from tests.support.publisher_socket import publishing
from tests.support.relay_process import PUBLISHER_KEY, running

PUBLICATIONS = st.lists(
    st.tuples(
        st.sampled_from(["market", "desk"]),
        st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        st.integers(0, 90).map("prices.{}".format),
        st.sampled_from(["e1", "e2"]),
        st.sampled_from(["published", "dropped", "alive"]),
    ),
    max_size=400,
)


class Noted(list[Event]):
    """An auditor that keeps the events."""

    note = list.append

    async def record(self, event: Event) -> None:
        """Not called here."""
        raise AssertionError(event)

    note_refusal = record

    def records(self) -> list[Record]:
        """Return the events as a reader of the log sees them."""
        made = [to_record(one, timestamp="2026-01-01T00:01:00.000Z", event_id="1", node="n") for one in self]
        return list(RecordReader().records(msgspec.json.encode(clip(record)) for record in made))


@given(PUBLICATIONS, st.sampled_from([0, 3, 70, 1000]))
def test_every_publication_is_in_a_row_or_in_the_sum(
    publications: list[tuple[str, str, str, str, str]], each: int
) -> None:
    """A publisher has as many rows as it may have, a record as many as are kept, and no count is lost."""
    noted = Noted()
    summary = PublicationSummary(noted, each=each, clock=lambda: 0.0)
    seqs: Counter[str] = Counter()
    rows: dict[tuple[str, str, str, str], Counter[str]] = {}
    spans: dict[tuple[str, str, str, str], list[int]] = {}
    for publisher, address, channel, epoch, what in publications:
        key = (publisher, address, channel, epoch)
        rows.setdefault(key, Counter())[what] += 1
        seqs[channel] += what == "published"
        position = Position(epoch=epoch, seq=seqs[channel])
        if what == "published":
            spans.setdefault(key, []).append(position.seq)
            summary.published(publisher, address, channel, position, 7)
        else:
            getattr(summary, what)(publisher, address, channel, position)
    summary.end_minute()
    records = noted.records()
    assert all(len(record.relay.publications) <= MAX_LIST for record in records)
    for publisher in ("market", "desk"):
        wanted = sum(key[0] == publisher for key in rows)
        kept = [
            row for one in records if one.relay.publisher.id == publisher for row in one.relay.publications
        ]
        assert len(kept) == min(each, wanted)
    answered = [
        ((one.relay.publisher.id, one.client.ip, row.channel, row.epoch), row)
        for one in records
        for row in one.relay.publications
    ]
    for key, row in answered:
        assert (row.count, row.dropped, row.alive) == tuple(
            rows[key][what] for what in ("published", "dropped", "alive")
        )
        seqs_of = spans.get(key, [0])
        assert (row.first, row.last) == (seqs_of[0], seqs_of[-1])
    counted = [*(row for _, row in answered), *(one.relay.others for one in records)]
    assert sum(row.count + row.dropped + row.alive for row in counted) == len(publications)
    summary.end_minute()
    assert len(noted) == len(records)


async def test_a_relay_that_stops_records_its_last_minute(tmp_path: Path) -> None:
    """HTTP, a batch and the socket: every way of publishing is counted, by the address that it came from."""
    with running(tmp_path) as relay:
        await relay.publish("prices.A", 1)
        batch = b'{"messages":[{"channel":"prices.A","data":2},{"channel":"trades.B","data":1}]}'
        await relay.publish_raw(batch, path="/v1/publish/batch")
        async with publishing(relay, PUBLISHER_KEY) as socket:
            await socket.send(socket.line("prices.A", 3))
            assert (await socket.next())["type"] == "ack"
        await relay.publish_raw(b'{"channel":"prices.A","alive":true}')
    records = list(RecordReader().records(relay.audit_path.read_bytes().splitlines(keepends=True)))
    ((address, found),) = (
        (one.client.ip, {row.channel: row for row in one.relay.publications})
        for one in records
        if one.relay.publications
    )
    assert address == "127.0.0.1"
    assert found.keys() == {"prices.A", "trades.B"}
    assert found["prices.A"] == Publications(
        channel="prices.A", epoch=found["prices.A"].epoch, first=1, last=3, count=3, bytes=3, alive=1
    )
