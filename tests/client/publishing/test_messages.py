"""What a publisher's values become on the wire."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.client.errors import PublishError
from relay.client.publishing.messages import Message, encode_message
from relay.core.errors import MalformedError
from relay.core.publications import parse_draft
from tests.support.poisoned_publications import DATA

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=10,
)


def _encode(data: Any) -> bytes:
    return b"{%b}" % encode_message(Message(channel="prices.A", data=data)).members


@settings(deadline=None)
@given(JSON)
def test_every_json_value_is_taken_by_the_relay(data: Any) -> None:
    """What the client sends passes the relay's own strict check, and says the same, on one line."""
    body = _encode({"v": data})
    assert b"\n" not in body
    message = parse_draft(body)
    assert message.channel == "prices.A"
    assert json.loads(bytes(message.data)) == json.loads(json.dumps({"v": data}))


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_text_escapes_from_its_place(data: bytes | str) -> None:
    """Whatever is given as JSON text ends up as `data` of its own channel, or nowhere."""
    try:
        body = _encode(data)
    except PublishError:
        return
    assert b"\n" not in body
    try:
        message = parse_draft(body)
    except MalformedError:
        return
    assert message.channel == "prices.A"
    assert message.source_ts is None


@pytest.mark.parametrize(
    "data", ['1,"source_ts":5', '1},{"channel":"b"', '{},"channel":"prices.B"', "1 2", "", " "]
)
def test_spliced_members_are_refused(data: str) -> None:
    """Text that would add members to the envelope is no JSON value, and is refused here."""
    with pytest.raises(PublishError) as caught:
        _encode(data)
    assert caught.value.code == "invalid_request"
    assert not caught.value.retryable


@pytest.mark.parametrize("name", DATA)
def test_the_client_refuses_what_the_relay_refuses(name: str) -> None:
    """One bad value never reaches the connection, where it would stop the values of all other channels."""
    with pytest.raises(PublishError) as caught:
        _encode(DATA[name])
    assert caught.value.code == "invalid_request"


def test_an_object_that_becomes_two_equal_names_is_refused() -> None:
    """Python knows the keys 1 and "1" apart. In JSON they are one name, twice."""
    with pytest.raises(PublishError, match="twice"):
        _encode({1: "a", "1": "b"})


def test_text_goes_out_verbatim() -> None:
    """Decimals that no float holds, and white space, stay as they were given."""
    body = encode_message(Message(channel="a", data=b'{"p": 64123.410000000001}', source_ts=5)).members
    assert body == b'"channel":"a","source_ts":5,"data":{"p": 64123.410000000001}'


def test_line_breaks_between_tokens_become_spaces() -> None:
    """A batch has one publication a line; a line break inside a string is an error and is not repaired."""
    assert _encode('{\r\n"a":\n1}').endswith(b'"data":{  "a": 1}}')
    with pytest.raises(PublishError):
        _encode('{"a":"x\ny"}')


@pytest.mark.parametrize(
    "data", [float("nan"), [float("inf")], {"a": object()}, {"a": {1, 2}}, "\ud800", ["\ud800"]]
)
def test_a_value_that_json_can_not_represent_is_refused(data: Any) -> None:
    """NaN is not turned into null, and no object is turned into its repr: the caller hears of it."""
    with pytest.raises(PublishError, match="JSON"):
        _encode(data)


def test_cycles_and_depth_are_refused() -> None:
    """A structure that contains itself ends in a sentence."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(PublishError, match="JSON"):
        _encode(cycle)


def test_bad_channels_and_sizes_are_refused() -> None:
    """A wildcard can't be published to, and 64 KiB is the most that the relay takes."""
    with pytest.raises(PublishError, match="not a channel"):
        encode_message(Message(channel="prices.*", data=1))
    with pytest.raises(PublishError) as caught:
        _encode("1" * 65_536)
    assert caught.value.code == "too_large"
