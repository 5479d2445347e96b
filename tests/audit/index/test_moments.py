"""Questions about a moment or a span of time: what the index says is what the whole log says, at any time of it."""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from relay.audit.chain import Link, seal
from relay.audit.index import parts, questions
from relay.audit.index.database import Index, Span
from relay.audit.index.sheets import SHEETS
from relay.audit.query.connected import connected_at
from relay.audit.query.holders import holders
from relay.audit.query.records import Record, RecordReader, iso
from relay.audit.query.sent import Message, recipients, unreported
from relay.core.events import Action, Event, to_record
from tests.support.audit_days import BEGIN

CHANNEL = "prices.A"
SECONDS = 600
FILES = 6
MOMENTS = 8


@pytest.fixture(autouse=True)
def _parts_with_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_LONGEST_TAIL", 0)
    monkeypatch.setattr(parts, "_LONGEST_SMALL", 0)


def at(second: float) -> datetime:
    """Return a time of the day."""
    time: datetime = BEGIN + timedelta(seconds=second)
    return time


def events(dice: random.Random, writer: str) -> Iterator[tuple[float, Event]]:  # noqa: C901  # what can happen
    """Let tokens be issued, used, renewed, revoked and replayed, and connections live for seconds or for the day."""
    lives = dice.choice((0.2, 5, 30, 200))
    tokens: list[str] = []
    open_: dict[str, str] = {}

    def event(action: Action, jti: str, connection: str = "", **relay: Any) -> Event:
        token = {"jti": jti, "kid": "k", "channels": ["prices.>"], "exp": at(now + lives).timestamp()}
        own = {"token": token, "session": {"ref": f"ref-{jti[-1]}", "roles": ["trader"]}}
        own |= {"connection": {"id": connection}} if connection else {}
        return Event(action=action, user=f"user-{jti[-1]}", endpoint="prices", relay=own | relay)

    for second in range(SECONDS):
        now = second + dice.choice((0.0, 0.4))
        chance = dice.random()
        if chance < 0.4:
            tokens.append(f"{writer}-{second}-{dice.randrange(3)}")
            yield now, event(Action.TOKEN_ISSUED, tokens[-1])
        elif chance < 0.6 and tokens:
            jti = dice.choice(tokens)  # some of them again, or long after their issue
            open_[f"{writer}-c{second}"] = jti
            named = {"channels": [CHANNEL], "count": dice.choice((1, 1, 3))} if dice.random() < 0.5 else {}
            yield now, event(Action.CONNECT_ACCEPTED, jti, f"{writer}-c{second}", **named)
        elif chance < 0.62:
            was_killed = dice.random() < 0.5
            open_ = {} if was_killed else open_
            yield now, Event(action=Action.AUDIT_GAP, relay={"unclean_end": was_killed})
        elif chance < 0.64:
            since = iso(at(now - dice.randrange(60)))
            yield now, Event(action=Action.SUBSCRIPTIONS_AGGREGATED, relay={"since": since})
        elif chance < 0.66 and tokens:
            revoked = dice.choice(("user", "token", "key", "session"))
            yield now, event(Action.SESSION_REVOKED, dice.choice(tokens), revoked=revoked)
        elif open_:
            connection = dice.choice([*open_])
            if dice.random() < 0.5:
                connection = [*open_][-1]  # most live for a few seconds
            jti = open_[connection]
            match dice.randrange(5):
                case 0:
                    yield now, event(Action.SUBSCRIBE_ACCEPTED, jti, connection, channels=[CHANNEL], count=1)
                case 1:
                    open_[connection] = tokens[-1]
                    yield now, event(Action.CONNECTION_REFRESHED, open_[connection], connection)
                case 2:
                    sent = [{"channel": CHANNEL, "epoch": "e", "first": 1, "last": second, "count": 3}]
                    yield now, event(Action.CONNECTION_CHANNELS, jti, connection, sent=sent)
                case _:
                    del open_[connection]
                    yield now, event(Action.CONNECTION_CLOSED, jti, connection, reports=dice.randrange(2))


def make_log(folder: Path, dice: random.Random, *, chains: int) -> tuple[list[Path], list[Record]]:
    """Write the files of chains, one chain after the other, and return them and the records as an index orders them."""
    files: list[Path] = []
    records: list[Record] = []
    for writer in ("x" * 16, "y" * 16)[:chains]:
        lines, head = [], Link(writer=writer, seq=0, hash="0" * 64)
        for second, event in events(dice, writer[0]):
            line, head = seal(to_record(event, timestamp=iso(at(second)), event_id="i", node="n"), head)
            lines.append(line + b"\n")
        cuts = [0, *sorted(dice.sample(range(1, len(lines)), FILES - 1)), len(lines)]
        for number, (first, last) in enumerate(pairwise(cuts)):
            files.append(folder / f"{writer[0]}-{number}.jsonl")
            files[-1].write_bytes(b"".join(lines[first:last]))
        records += RecordReader().records(lines)
    return files, sorted(records, key=lambda record: record.at)


def spans(dice: random.Random, records: Sequence[Record]) -> Iterator[tuple[datetime, datetime]]:
    """Yield moments, as spans of no length, and spans, at records and between them, before the log and after it."""
    for _ in range(MOMENTS):
        first = datetime.fromisoformat(dice.choice(records).at) + timedelta(
            milliseconds=dice.randrange(-1, 2)
        )
        yield first, first
        yield first, first + timedelta(seconds=dice.choice((1, 20, 400)))
    yield at(-10), at(-10)
    yield at(SECONDS * 2), at(SECONDS * 2)
    yield at(-10), at(SECONDS * 2)


@pytest.mark.parametrize("chains", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_any_span_of_time(tmp_path: Path, seed: int, chains: int) -> None:
    """Who was connected, who held what, who was sent a message, and what was not reported."""
    dice = random.Random(seed)
    files, records = make_log(tmp_path, dice, chains=chains)
    message = Message(epoch="e", first=300, last=300, published=iso(at(300)))
    read = RecordReader().records
    for begin, end in spans(dice, records):
        span: Span = (iso(begin), iso(end))
        with Index(tmp_path / "audit-index", files, chains=chains, memory_mb=128, span=span) as index:
            lines = questions.lines_of_connections(index, "prices", begin=span[0], end=iso(end))
            assert connected_at(read(lines), "prices", at=end, since=begin) == connected_at(
                records, "prices", at=end, since=begin
            )
            lines = questions.lines_of_holders(index, begin=span[0], end=iso(end), expires=begin.timestamp())
            assert holders(read(lines), at=end, since=begin) == holders(records, at=end, since=begin)
            bounds = (iso(begin), iso(end))
            lines = questions.lines_of_subscribers(index, questions.keys_of_channel(index, CHANNEL), span)
            assert recipients(read(lines), CHANNEL, [message], span=bounds) == recipients(
                records, CHANNEL, [message], span=bounds
            )
            known = [one for one in records if one.at <= iso(end)]
            for about in ("user-1", records[-1].relay.connection.id):
                lacking = unreported(read(questions.lines_of_ends(index, about)), about)
                expected = unreported(known, about)
                assert [one for one in lacking if not one.until or one.until >= bounds[0]] == [
                    one for one in expected if not one.until or one.until >= bounds[0]
                ]


def test_of_another_time_few_rows_are_read(tmp_path: Path) -> None:
    """Those that the sheet has, which says so for each file alone."""
    files, _ = make_log(tmp_path, random.Random(7), chains=2)
    never = iso(at(SECONDS * 2))
    with Index(tmp_path / "audit-index", files, chains=2, memory_mb=128) as index:
        index.make_keys_around((never, never))
        found = index.rows("SELECT file, start FROM keys_around")
        ((every,),) = index.rows("SELECT count(*) FROM keys")
        again = []
        for number in range(len(files)):
            index._read_again(number, index.files[number].parts[0], "again")
            again += [
                (number, *row)
                for row in index.rows(f"SELECT start FROM ({SHEETS['loose'].format(rows='again')})")
            ]
    assert sorted(found) == sorted(again)
    assert 0 < len(found) < every
