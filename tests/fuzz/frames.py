"""Frames, publications and channels: what comes in once a connection stands, and what goes out to everybody."""

import json
from collections.abc import Sequence
from typing import Any

from relay.core.errors import MalformedError
from relay.core.messages import parse_client_frame, snapshot, update
from relay.core.patterns import check_channel, check_pattern, covers, is_channel, is_pattern, may_overlap
from relay.core.protocol import RefreshRequest
from relay.core.publications import Publication, parse_draft
from relay.core.scope import Scope
from relay.core.tokens import MAX_TOKEN_BYTES
from relay.ingest.routes import MAX_BATCH, _items
from tests.fuzz.target import Target, text_of
from tests.support.protocol_client import ProtocolConnection


def frame(data: bytes) -> None:
    """Any text frames, one a line, on a connection with prices: answered in JSON, or closed."""
    talk = ProtocolConnection("prices.>", "trades.*")
    talk.open()
    for line in data.split(b"\n")[:30]:
        text = text_of(line)
        try:
            parse_client_frame(text)
        except MalformedError as error:
            error.detail.encode()
        if isinstance(asked := talk.client.receive(text, talk.now), RefreshRequest):
            talk.client.refreshed(asked, scope=Scope(("prices.A",)), expires_at=talk.now + 60, floor_ms=0)
        talk.wait(0.2)
    while talk.hub.flush(100):
        pass
    for said in talk.line.frames():
        assert isinstance(said["type"], str)


def publication(data: bytes) -> None:
    """Any body of a publication: refused, or spliced into frames that every browser can read."""
    try:
        draft = parse_draft(data)
    except MalformedError as error:
        error.detail.encode("utf-8", "strict")
        return
    check_channel(draft.channel)
    made = Publication(
        channel=draft.channel, epoch="e", seq=1, ts=1, data=bytes(draft.data), source_ts=draft.source_ts
    )
    for message in (update(made), snapshot(made)):
        text = message.decode("utf-8", "strict")
        assert "\n" not in text
        assert "\r" not in text
        read = json.loads(text, object_pairs_hook=_once)
        assert read["channel"] == draft.channel
        assert read["data"] == json.loads(data)["data"] or read["data"] != read["data"]


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs)
    return found


def batch(data: bytes) -> None:
    """Any body of a batch, as JSON and as NDJSON: cut into messages, each good or bad by itself."""
    for kind in ("application/json", "application/x-ndjson; charset=utf-8", "text/plain"):
        try:
            items = _items(data, kind)
        except MalformedError as error:
            error.detail.encode()
            continue
        assert len(items) <= MAX_BATCH
        for item in items:
            publication(item)


def channels(data: bytes) -> None:
    """Any names, one a line: what covers also overlaps, and no scope grants what neither side of it does."""
    names = [text_of(line) for line in data.split(b"\n")[:16]]
    good = [name for name in names if is_pattern(name)]
    for name in names:
        for check in (check_channel, check_pattern):
            try:
                assert check(name) == name
            except MalformedError as error:
                error.detail.encode()
    for one in good:
        assert covers(one, one)
        for other in good:
            assert may_overlap(one, other) == may_overlap(other, one)
            if covers(one, other):
                assert may_overlap(one, other)
            if is_channel(other):
                assert covers(one, other) == may_overlap(one, other)
    half = len(names) // 2
    first, second = Scope(tuple(good[:half])), Scope(tuple(good[half:]))
    granted, rejected = first.split(names)
    assert {*granted, *rejected} == set(names)
    for name in names:
        if first.intersect(second).allows(name):
            assert first.allows(name)
            assert second.allows(name)


TARGETS = (
    Target(
        name="frame",
        feed=frame,
        seeds=(
            b'{"type":"subscribe","id":1,"channels":["prices.A","trades.*"],"interval_ms":100}',
            b'{"type":"subscribe","channels":["trades.A"],"since":{"trades.A":{"epoch":"e","seq":1}}}\n'
            b'{"type":"unsubscribe","id":2,"channels":["trades.A"]}\n{"type":"ping","id":-3}',
            b'{"type":"refresh","id":4,"token":"a"}\n{"type":"auth","token":"a"}',
            b'{"type":"\\ud800","id":9007199254740993}',
            b'{"type":"subscribe","channels":["\\ud800","' + b"a" * 70 + b'"],"interval_ms":-1}',
        ),
    ),
    Target(
        name="publication",
        feed=publication,
        seeds=(
            b'{"channel":"prices.A","data":{"bid":1.10,"\\u0000":[null,true]},"source_ts":1}',
            b'{"channel":"prices.A",\r\n"data":"\\ud83d\\ude00"}',
            b'{"channel":"prices.A","data":"\\ud800"}',
            b'{"channel":"prices.A","data":' + b"[" * 70 + b"]" * 70 + b"}",
            b'{"channel":"prices.A","data":1e999}',
        ),
    ),
    Target(
        name="batch",
        feed=batch,
        seeds=(
            b'{"messages":[{"channel":"prices.A","data":1},{"channel":"prices.B","data":{}}]}',
            b'{"channel":"prices.A","data":1}\n\n{"channel":"prices.B","data":"x"}\r\n',
            b'{"messages":[],"messages":[1]}',
        ),
    ),
    Target(
        name="channels",
        feed=channels,
        seeds=(
            b"prices.>\nprices.*\nprices.BTC-USD\n*.BTC-USD\n>\n*",
            b"a.*.>\na.b.c.d\n*.*\n\n.\na..b\n\xc3\xa9",
        ),
    ),
)
assert max(len(seed) for target in TARGETS for seed in target.seeds) < MAX_TOKEN_BYTES
