"""Frames from the server, read as events."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.client.frames import Batch, Snapshot, Subscribed, Update, Welcome, parse_server_frame
from relay.core.errors import MalformedError
from tests.support.client_cases import BROKEN_FRAMES

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_data_is_kept_byte_for_byte() -> None:
    """A decimal that no float can hold passes through unharmed."""
    frame = parse_server_frame(
        '{"type":"update","channel":"a","seq":1,"ts":2,"data":{"p": 64123.410000000001}}'
    )
    assert isinstance(frame, Update)
    assert bytes(frame.raw) == b'{"p": 64123.410000000001}'
    assert msgspec.json.encode(frame).endswith(b'"data":{"p": 64123.410000000001}}')


def test_a_batch_keeps_its_frames_as_they_are() -> None:
    """Each is read for itself, so one that is broken takes no other with it, and decimals pass unharmed."""
    update = b'{"type":"update","channel":"a","seq":1,"ts":2,"data":{"p": 64123.410000000001}}'
    batch = parse_server_frame(b'{"type":"batch","frames":[%b, 7]}' % update)
    assert isinstance(batch, Batch)
    assert [bytes(frame) for frame in batch.frames] == [update, b"7"]


def test_data_is_also_there_as_objects() -> None:
    """`value` decodes the data to Python objects."""
    frame = parse_server_frame(
        '{"type":"snapshot","channel":"a","epoch":"e","seq":1,"ts":2,"data":{"bid":"1.10"}}'
    )
    assert isinstance(frame, Snapshot)
    assert frame.data == {"bid": "1.10"}
    assert frame.epoch == "e"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"1e400", float("inf")),
        (b"-1e400", float("-inf")),
        (b"9" * 5000, float("inf")),
        (b"1" + b"0" * 40, 10**40),
        (b"0.1", 0.1),
    ],
)
def test_numbers_of_older_relays_can_be_read(text: bytes, number: float) -> None:
    """A number that no float can hold, from a relay that accepted it, is infinite and raises nothing."""
    frame = parse_server_frame(b'{"type":"update","channel":"a","seq":1,"ts":2,"data":{"p":%b}}' % text)
    assert isinstance(frame, Update)
    assert frame.data == {"p": number}


def test_half_a_surrogate_pair_of_an_older_relay_can_be_read() -> None:
    """Text that is not valid Unicode, from a relay that accepted it, raises nothing."""
    frame = parse_server_frame(rb'{"type":"update","channel":"a","seq":1,"ts":2,"data":"\ud800"}')
    assert isinstance(frame, Update)
    assert frame.data == "\ud800"


def test_unknown_types_are_ignored() -> None:
    """A newer server may send frames that this client has never heard of."""
    assert parse_server_frame('{"type":"weather","degrees":21}') is None


def test_unknown_members_are_ignored() -> None:
    """A newer server may add members to the frames that are known."""
    frame = parse_server_frame(
        '{"type":"welcome","connection":"c","ts":1,"expires_at":2,"new":{"a":[1]},"limits":{"x":1}}'
    )
    assert isinstance(frame, Welcome)
    assert frame.heartbeat_ms == 5000
    assert frame.limits.frames_per_s == 10


def test_acks_of_channels_and_patterns_are_told_apart() -> None:
    """A channel's ack has its position, a pattern's the number of channels that match."""
    frame = parse_server_frame(
        '{"type":"subscribed","id":1,"channels":[{"channel":"a","mode":"latest","interval_ms":0,"epoch":"e",'
        '"seq":7,"state":"live","recovered":false},{"channel":"a.*","mode":"latest","interval_ms":0,"matches":2}],'
        '"rejected":[{"channel":"b","code":"forbidden","message":"No."}]}'
    )
    assert isinstance(frame, Subscribed)
    exact, pattern = frame.channels
    assert (exact.epoch, exact.seq, exact.state, exact.matches) == ("e", 7, "live", None)
    assert (pattern.epoch, pattern.matches) == (None, 2)
    assert frame.rejected[0].code == "forbidden"


@pytest.mark.parametrize(
    "text",
    [
        *BROKEN_FRAMES,
        '{"type":"update"}',
        '{"type":"update","seq":"1"}',
        "[" * 100_000,
    ],
)
def test_malformed_frames_are_named(text: str) -> None:
    """What is no frame raises the one documented exception."""
    with pytest.raises(MalformedError):
        parse_server_frame(text)


@settings(deadline=None)
@given(st.text() | st.binary())
def test_any_input_is_parsed_or_refused(text: str | bytes) -> None:
    """Nothing that a server sends raises anything undocumented."""
    with contextlib.suppress(MalformedError):
        parse_server_frame(text)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["type", "channel", "seq", "ts", "data", "epoch", "id"]), JSON))
def test_any_object_is_parsed_or_refused(frame: dict[str, object]) -> None:
    """The same for JSON objects whose members have the right names and anything in them."""
    with contextlib.suppress(MalformedError):
        parse_server_frame(json.dumps(frame | {"type": frame.get("type", "update")}))
