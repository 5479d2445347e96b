"""Publications: one bad byte would disconnect every client, so it is refused. Good bytes stay unchanged."""

import json
import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import MalformedError, Reason
from relay.core.patterns import is_channel
from relay.core.publications import MAX_DEPTH, MAX_PUBLICATION_BYTES, check_data, parse_draft
from tests.support.poisoned_publications import DATA


def body(data: bytes, channel: bytes = b"prices.BTC-USD") -> bytes:
    return b'{"channel":"' + channel + b'","data":' + data + b"}"


def spliced(data: bytes) -> bytes:
    return bytes(parse_draft(body(data)).data)


def refusal(raw: bytes) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        parse_draft(raw)
    assert caught.value.detail.endswith(".")
    assert "\n" not in caught.value.detail
    return caught.value


def test_channel_data_and_source_time_are_read() -> None:
    """Channel, data and the source's time come out."""
    draft = parse_draft(b'{"channel":"prices.BTC-USD","data":{"bid":1.5},"source_ts":1795319000219}')
    assert (draft.channel, bytes(draft.data), draft.source_ts) == (
        "prices.BTC-USD",
        b'{"bid":1.5}',
        1795319000219,
    )


@pytest.mark.parametrize(
    "data",
    [
        *[
            b"64123.410000000001",
            b"1e308",
            b"1e-400",
            b"-0",
            b"-0.0",
            b"1E+2",
            b"0.1000",
            b"1" * 309,
            b"123456789012345678901234567890.5",
        ],
        *[b"null", b"true", b'""', b"[]", b"{}", b'"\\u00e9\\/\\ud83d\\ude00"', '"é€😀\u2028"'.encode()],
        *[b'{"b":1,"a":2}', b"[1, 2,\t3]", b'{ "a" : 1 }', b'{"channel":"x","data":1}'],
    ],
)
def test_data_is_spliced_byte_for_byte(data: bytes) -> None:
    """No decimal is rounded, no key reordered, no escape and no space changed."""
    assert spliced(data) == data


def test_space_around_data_is_not_part_of_it() -> None:
    """The frame around it brings its own."""
    assert spliced(b" \t {} \t ") == b"{}"


def test_line_breaks_between_tokens_become_spaces() -> None:
    """A pretty-printed body is fine, and one publication stays one line for NDJSON and Server-Sent Events."""
    assert spliced(b'{\r\n  "a": [\n1,\r2]\n}') == b'{    "a": [ 1, 2] }'


def test_an_escaped_line_break_stays() -> None:
    """In a string it is an escape, and no byte of it is a line break."""
    assert spliced(b'"a\\nb\\r\\u000a"') == b'"a\\nb\\r\\u000a"'


@pytest.mark.parametrize(
    "raw",
    [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\x80"],
    ids=bytes.hex,
)
@pytest.mark.parametrize("place", [b'"%s"', b'{"%s":1}', b'["a",{"b":"x%sy"}]'])
def test_a_body_of_invalid_utf8_is_refused(raw: bytes, place: bytes) -> None:
    """A browser fails the whole connection on it (RFC 6455 §8.1): stray, cut, overlong, surrogate, out of range."""
    assert "UTF-8" in refusal(body(place % raw)).detail


@pytest.mark.parametrize("char", [bytes([code]) for code in range(0x20)], ids=bytes.hex)
def test_raw_control_characters_in_a_string(char: bytes) -> None:
    """A raw newline would end the line, and JSON has none of them in strings."""
    assert refusal(body(b'"a' + char + b'b"')).reason is Reason.PUBLICATION_MALFORMED


@pytest.mark.parametrize("data", [b"NaN", b"Infinity", b"-Infinity", b"[NaN]", b'{"a":[-Infinity]}'])
def test_numbers_that_are_not_json(data: bytes) -> None:
    """Python's JSON takes them, a browser's does not."""
    assert "is not JSON: use null" in refusal(body(data)).detail


@pytest.mark.parametrize(
    "data", [b'"\\ud800"', b'"\\udc00"', b'"\\ud800x"', b'"\\ud800\\u0041"', b'{"\\udfff":1}']
)
def test_a_lone_surrogate_is_refused(data: bytes) -> None:
    """They can't be written as UTF-8, so a client that passes the value on would fail."""
    assert refusal(body(data)).reason is Reason.PUBLICATION_MALFORMED


@pytest.mark.parametrize(
    "raw",
    [
        b'{"channel":"a","channel":"b","data":1}',
        b'{"channel":"a","data":1,"data":2}',
        b'{"channel":"a","ch\\u0061nnel":"b","data":1}',
        b'{"channel":"a","data":{"x":1,"x":1}}',
        b'{"channel":"a","data":[{"x":{"y":1,"\\u0079":2}}]}',
    ],
)
def test_a_member_that_stands_twice_is_refused(raw: bytes) -> None:
    """Parsers differ in which one wins; in the envelope that would be a way around the channel check."""
    assert "twice" in refusal(raw).detail


@pytest.mark.parametrize("levels", [1, 2, MAX_DEPTH - 1, MAX_DEPTH])
def test_depth_that_is_allowed(levels: int) -> None:
    """Up to 64 levels, the publication's own braces counted."""
    inner = b"[" * (levels - 1) + b"]" * (levels - 1)
    assert spliced(inner or b"1") == (inner or b"1")
    objects = b'{"a":' * (levels - 1) + b"1" + b"}" * (levels - 1)
    assert spliced(objects) == objects


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, MAX_DEPTH + 2, 900, 10_000])
def test_depth_that_is_not(levels: int) -> None:
    """The 65th is refused, and 10,000 neither crash nor hang."""
    sentence = "nested too deeply" if levels == 10_000 else f"nested deeper than {MAX_DEPTH}"
    assert sentence in refusal(body(b"[" * (levels - 1) + b"]" * (levels - 1))).detail
    objects = b'{"":' * (levels - 1) + b"1" + b"}" * (levels - 1)
    assert sentence in refusal(body(objects)).detail


def test_depth_beside_many_brackets() -> None:
    """The limit is the same where the body has more brackets than levels, and they have to be followed one by one."""
    deepest = b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2)
    wide = b'[{"a":1},[],' + deepest + b',{"b":[[]]}]'
    assert spliced(wide) == wide
    assert "deeper than 64" in refusal(body(wide.replace(deepest, b"[" + deepest + b"]"))).detail


def test_many_brackets_are_not_depth() -> None:
    """A flat list of objects, and brackets in strings, are as deep as they look."""
    flat = b"[" + b",".join([b'{"bid":1}'] * 1000) + b"]"
    text = b'"' + b"[" * 1000 + b'"'
    assert spliced(flat) == flat
    assert spliced(text) == text


def test_the_size_limit_is_exact() -> None:
    """64 KiB are allowed, and a byte more is `publication_too_large`."""
    room = MAX_PUBLICATION_BYTES - len(body(b'""'))
    assert len(spliced(b'"' + b"x" * room + b'"')) == room + 2
    assert refusal(body(b'"' + b"x" * (room + 1) + b'"')).reason is Reason.PUBLICATION_TOO_LARGE


class Untouchable(bytes):
    """Bytes that say so when somebody reads them."""

    def decode(self, *args: object, **kwargs: object) -> str:
        raise AssertionError("a body that is too large was looked at")


def test_5_megabytes_are_not_read() -> None:
    """They are refused for their length alone."""
    assert refusal(Untouchable(b"[" * 5_000_000)).reason is Reason.PUBLICATION_TOO_LARGE


@pytest.mark.parametrize("data", [b"9" * 5000, b"9" * 309, b"1e400", b'{"a":[-1e999]}', b"1.8E+308"])
def test_numbers_that_some_parser_refuses(data: bytes) -> None:
    """A number beyond a 64-bit float is refused: Go and Rust can't read it, and Python makes infinity of it."""
    assert "64-bit float: use a string" in refusal(body(data)).detail


@pytest.mark.parametrize("name", DATA)
def test_a_value_that_the_relay_refuses_is_refused_alone_too(name: str) -> None:
    """`check_data`, which publisher clients use, refuses each value that `parse_draft` refuses."""
    refusal(body(DATA[name]))
    with pytest.raises(MalformedError):
        check_data(DATA[name])


def test_what_is_accepted_can_be_read_by_the_other_parser() -> None:
    """msgspec reads each number and text that the check accepts."""

    @given(
        st.one_of(
            st.from_regex(r"-?(0|[1-9][0-9]{0,320})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
            st.from_regex(r'"(\\u(?:[dD][89a-fA-F]|[0-9a-f]{2})[0-9a-f]{2}|[a-z]){0,6}"', fullmatch=True),
        )
    )
    def check(text: str) -> None:
        try:
            check_data(text.encode())
        except MalformedError:
            return
        msgspec.json.decode(text)

    check()


@pytest.mark.parametrize(
    "raw",
    [
        *[
            b"",
            b" ",
            b"1",
            b"null",
            b"[]",
            b'"a"',
            b"{",
            b"{}",
            b"\xef\xbb\xbf{}",
            b"\x00",
            b"channel=a&data=1",
        ],
        *[b'{"channel":"a"}', b'{"data":1}', b'{"channel":1,"data":1}', b'{"channel":null,"data":1}'],
        *[
            b'{"channel":"a","data":}',
            b'{"channel":"a","data":1,}',
            b'{"channel":"a","data":01}',
            b'{"channel":"a","data":.5}',
        ],
        *[
            b'{"channel":"a","data":1}{}',
            b'{"channel":"a","data":1} x',
            b"{'channel':'a','data':1}",
            b'{"channel":"a","data":1}\x00',
        ],
        *[b'{"channel":"a","data":1,"extra":1}', b'{"Channel":"a","data":1}', b'[{"channel":"a","data":1}]'],
    ],
)
def test_a_body_of_another_form_is_refused(raw: bytes) -> None:
    """What is not of the documented form is refused, with a sentence for the publisher."""
    assert refusal(raw).reason is Reason.PUBLICATION_MALFORMED


@pytest.mark.parametrize(
    "channel", [b"", b"prices.*", b"prices.>", b"a b", b"a..b", b"\xc3\xa9", b"a" * 65, b"a\\n"]
)
def test_a_channel_that_is_not_exact_is_refused(channel: bytes) -> None:
    """A publication is for one exact channel."""
    assert "is not a channel" in refusal(body(b"1", channel)).detail


@pytest.mark.parametrize(
    "value",
    [b"-1", b"1.5", b"1.0", b"true", b'"1795319000219"', b"[]", b"9007199254740992", b"1e3", b"9" * 30],
)
def test_a_source_time_that_is_no_whole_millisecond_is_refused(value: bytes) -> None:
    """Unix time in whole milliseconds, exact in JavaScript too."""
    refusal(b'{"channel":"a","data":1,"source_ts":' + value + b"}")


@pytest.mark.parametrize("value", [0, 1, 1795319000219, 2**53 - 1])
def test_a_source_time_is_kept_as_it_was_sent(value: int) -> None:
    """They come out as they went in; null is none."""
    assert parse_draft(b'{"channel":"a","data":1,"source_ts":%d}' % value).source_ts == value
    assert parse_draft(b'{"channel":"a","data":1,"source_ts":null}').source_ts is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=json_values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_any_json_value_is_kept_but_for_its_line_breaks(
    *, value: object, ascii_only: bool, indent: int | None
) -> None:
    """Any JSON value goes through unchanged, however it is written; only line breaks become spaces."""
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert spliced(data) == data.replace(b"\n", b" ")


fragments = st.sampled_from(
    [b'{"channel":', b'"a"', b',"data":', b"}", b"[", b"]", b"1e5", b"\xff", b'"\\ud800"', b"\n", b'"']
)
bodies = (
    st.binary(max_size=60) | st.lists(fragments, max_size=12).map(b"".join) | st.binary(max_size=20).map(body)
)


@given(bodies)
@example(body(b"1"))
@example(body(b'"\x80"'))
def test_any_bytes_are_malformed_or_json_that_browsers_parse(raw: bytes) -> None:
    """Whatever comes is a MalformedError with a sentence, or text that every browser can parse."""
    try:
        draft = parse_draft(raw)
    except MalformedError:
        return
    assert is_channel(draft.channel)
    text = bytes(draft.data).decode("utf-8")
    assert not re.search(r"[\r\n]", text)
    json.loads(text)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        (b'"data":1,"version":-1', "version must be a whole number"),
        (b'"data":1,"version":9007199254740992', "version must be a whole number"),
        (b'"data":1,"version":1.5', "does not have the required form"),
        (b'"data":1,"version":"1"', "does not have the required form"),
        (b'"data":1,"version":true', "does not have the required form"),
        (b'"data":1,"version_epoch":1', "needs a version"),
        (b'"data":1,"version":1,"version_epoch":-1', "version_epoch must be a whole number"),
        (b'"data":1,"idempotency_key":""', "idempotency_key must have"),
        (b'"data":1,"idempotency_key":"' + b"x" * 65 + b'"', "1 to 64"),
        (b'"data":1,"idempotency_key":"a\\nb"', "printable"),
        (b'"data":1,"idempotency_key":"\xc3\xa4"', "ASCII"),
        (b'"data":1,"idempotency_key":1', "does not have the required form"),
        (b'"source_ts":1', "is missing"),
        (b'"alive":false', "is missing"),
        (b'"alive":true,"data":1', "sign of life"),
        (b'"alive":true,"version":1', "sign of life"),
        (b'"alive":1', "does not have the required form"),
    ],
)
def test_members_that_do_not_fit(members: bytes, sentence: str) -> None:
    """Each mistake is named, and nothing is guessed."""
    assert sentence in refusal(b'{"channel":"a",' + members + b"}").detail


def test_every_optional_member_is_read() -> None:
    """The optional members of a publication."""
    draft = parse_draft(
        b'{"channel":"a","data":null,"version":0,"version_epoch":9007199254740991,"idempotency_key":"k 1"}'
    )
    assert (draft.version, draft.version_epoch, draft.idempotency_key, bytes(draft.data)) == (
        0,
        9007199254740991,
        "k 1",
        b"null",
    )
    assert parse_draft(b'{"channel":"a","alive":true}').alive
