"""The rules of the chain: canonical form, sealing, and reading a line again."""

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit.chain import GENESIS, MAX_LINE, Link, canonical, seal, unseal
from relay.core.errors import MalformedError
from relay.core.events import MAX_LIST, MAX_TEXT, clip, to_record
from tests.support.audit_logs import HOSTILE, an_event, with_new_hashes

START = Link.before_first("writer-1")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def a_record(**relay: Any) -> dict[str, Any]:
    """Return a record without its chain fields."""
    return to_record(an_event(relay=relay), timestamp="2026-01-01T00:00:00.000Z", event_id="id-1", node="n")


@given(JSON)
def test_canonical_form_is_printable_ascii_that_reads_back(value: Any) -> None:
    """Whatever a record holds, its canonical form is one line of printable ASCII with the same meaning."""
    form = canonical({"value": value})
    assert json.loads(form) == {"value": value}
    assert all(0x20 <= byte <= 0x7E for byte in form)


def test_canonical_form_does_not_depend_on_the_order_of_members() -> None:
    """Two records with the same members have the same form, at every depth."""
    assert canonical({"b": {"d": 1, "c": 2}, "a": 3}) == canonical({"a": 3, "b": {"c": 2, "d": 1}})
    assert canonical({"b": {"d": 1, "c": 2}, "a": 3}) == b'{"a":3,"b":{"c":2,"d":1}}'


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_sealed_record_follows_the_documented_rules(details: dict[str, Any]) -> None:
    """Standard library calls that know nothing of this package come to the same line."""
    line, link = seal(a_record(**details), START)
    record = json.loads(line)
    assert with_new_hashes(json.loads(line)) == line + b"\n"
    assert record["relay"]["chain"] == {
        "hash": link.hash,
        "prev": GENESIS,
        "seq": 1,
        "writer": "writer-1",
    }
    assert record["event"]["sequence"] == 1


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_sealed_line_is_read_again(details: dict[str, Any]) -> None:
    """Sealed lines are intact, know their place, and each follows the one before and no other."""
    first, at_first = seal(a_record(**details), START)
    second, at_second = seal(a_record(**details), at_first)
    one, two = unseal(first), unseal(second + b"\n")
    assert (one.link, one.intact, two.link, two.intact) == (at_first, True, at_second, True)
    assert one.follows(START)
    assert two.follows(at_first)
    assert not two.follows(START)


def test_an_event_can_not_bring_its_own_chain_fields() -> None:
    """What an event calls `chain` is replaced, also where it looks like the real thing."""
    line, link = seal(a_record(chain={"prev": "f" * 64, "seq": 7, "hash": "x", "writer": "w"}), START)
    assert unseal(line).intact
    assert json.loads(line)["relay"]["chain"]["seq"] == 1
    assert link.seq == 1


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_stays_inside_its_string(text: str) -> None:
    """A text that looks like the end of a line, or of a string, changes neither the line nor its hash's place."""
    line, _ = seal(a_record(text=text), START)
    assert unseal(line).intact
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert len(line.decode().splitlines()) == 1


@given(st.data())
def test_any_other_byte_is_noticed(data: st.DataObject) -> None:
    """A line with one byte changed is either no record any more or its hash no longer fits."""
    line, _ = seal(a_record(note="é\n"), START)
    at = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
    changed = line[:at] + bytes([byte]) + line[at + 1 :]
    with suppress(MalformedError):
        assert not unseal(changed).intact


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_malformed(line: bytes) -> None:
    """Bytes that are no record are refused with the documented exception, whatever they are."""
    with pytest.raises(MalformedError):
        unseal(line)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"relay":{"chain":'])
def test_deep_garbage_is_malformed(opening: bytes) -> None:
    """A line of a hundred thousand brackets costs neither the stack nor an unknown exception."""
    with pytest.raises(MalformedError):
        unseal(opening * 100_000)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *[("seq", value) for value in (0, -1, "1", 1.5, True)],
        *[("writer", value) for value in ("", "a\n", "a:b", "w" * 65)],
        *[("prev", value) for value in ("0", "G" * 64)],
    ],
)
def test_chain_fields_have_their_form(member: str, value: object) -> None:
    """A line with a chain field of another form is no record, even if its hash fits."""
    line, _ = seal(a_record(), START)
    record = json.loads(line)
    record["relay"]["chain"][member] = value
    with pytest.raises(MalformedError):
        unseal(with_new_hashes(record))


def test_what_has_no_canonical_form_is_refused() -> None:
    """It raises instead of being bent."""
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"x": math.nan})
    with pytest.raises(TypeError):
        canonical({"x": object()})


def test_a_record_is_cut_to_size_before_it_is_sealed() -> None:
    """Whatever an event holds, its line is bounded, and strict parsers take it; what is too long even so is refused."""
    line, _ = seal(a_record(x="x" * MAX_LINE, y=math.nan, z=[1] * 1000, big=2**80), START)
    relay = json.loads(line)["relay"]
    assert (len(relay["x"]), relay["y"], len(relay["z"]), relay["big"]) == (MAX_TEXT, "nan", MAX_LIST, 2**80)
    with pytest.raises(ValueError, match="longer"):
        seal(a_record(x=[["\x7f" * MAX_TEXT] * MAX_LIST] * MAX_LIST), START)


ODD = st.sampled_from(
    [
        "\x7f",
        "\\",
        '"',
        "\x1f",
        "/",
        "é",
        "\u2028",
        "x" * MAX_TEXT,
        "x" * (MAX_TEXT + 1),
        "nan",
        "null",
        "1e16",
    ]
)
NUMBERS = st.sampled_from([0, -1, 1e16, 1.5, -0.0, math.nan, math.inf, 2**63, 2**64, -(2**63) - 1, 10**40])


@given(
    st.dictionaries(
        ODD | st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | NUMBERS | ODD | st.text(),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.integers().map(lambda one: [one] * (MAX_LIST + 1))
                | st.dictionaries(ODD | st.text(), inner, max_size=4)
            ),
            max_leaves=12,
        ),
        max_size=4,
    )
)
def test_the_quick_way_to_a_line_is_the_documented_one(details: dict[str, Any]) -> None:
    """Records that need no cutting and no escaping are encoded by another library: not a byte may differ."""
    line, link = seal(a_record(**details), START)
    cut: dict[str, Any] = clip(a_record(**details))
    cut["event"]["sequence"] = 1
    cut["relay"]["chain"] = {"hash": link.hash, "prev": GENESIS, "seq": 1, "writer": "writer-1"}
    assert line == canonical(cut)
    assert with_new_hashes(json.loads(line)) == line + b"\n"


def test_a_head_is_read_again() -> None:
    """The text of a head names the same place when it comes back."""
    link = Link("node-1.a_b", 12, "0123456789abcdef" * 4)
    assert Link.parse(str(link)) == link


@given(st.text())
def test_what_is_no_head_is_malformed(text: str) -> None:
    """Any other text is refused with a sentence that says what a head looks like."""
    with pytest.raises(MalformedError, match="WRITER:SEQ:HASH"):
        Link.parse(text)
