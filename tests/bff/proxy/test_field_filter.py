"""The field filter removes what the settings name, and changes no other character of the backend's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.bff.proxy.field_filter import FieldFilter, NotFilterableError
from relay.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("strip", "before", "after"),
    [
        (["ssn"], '{"ssn":1}', "{}"),
        (["ssn"], '{"a": {"ssn": {"x": [1]}, "b":2}, "ssn":"x"}', '{"a": { "b":2}}'),
        (["ssn"], '[{"ssn":1,"a":1.10},{"b":[{"ssn":2}]}]', '[{"a":1.10},{"b":[{}]}]'),
        (["ssn"], '{"s\\u0073n":1,"a":"\\u00e9\\/"}', '{"a":"\\u00e9\\/"}'),
        (["ssn"], '{"SSN":1,"ssn ":2,"a":"ssn"}', '{"SSN":1,"ssn ":2,"a":"ssn"}'),
        (["a.ssn"], '{"ssn":1,"a":{"ssn":1,"b":{"ssn":1}}}', '{"ssn":1,"a":{"b":{"ssn":1}}}'),
        (
            ["users.*.score"],
            '{"users":[{"score":1,"id":12345678901234567890}]}',
            '{"users":[{"id":12345678901234567890}]}',
        ),
        (["users.*.score"], '{"users":{"k":{"score":1}},"score":2}', '{"users":{"k":{}},"score":2}'),
        (["*.score"], '[{"score":1,"a":1e400}]', '[{"a":1e400}]'),
        (["list.0"], '{"list":[ 1, 2 ]}', '{"list":[ 2 ]}'),
        (["list.*"], '{"list":[1,{"a":2}]}', '{"list":[]}'),
        (["a.b", "a.c"], ' {"a":{"b":1,"c":2,"d":3}}\r\n', ' {"a":{"d":3}}\r\n'),
        (["ssn"], '"ssn"', '"ssn"'),
        (["ssn"], "[]", "[]"),
        (["ssn"], '[{"ssn":1} , "a\\"]" , null ]', '[{} , "a\\"]" , null ]'),
    ],
)
def test_fields_are_removed_and_the_rest_stays_as_it_was(strip: list[str], before: str, after: str) -> None:
    """A name at every depth, a path from the root, `*` for one member or index; numbers and escapes as they came."""
    assert FieldFilter(strip).filter(before.encode()).decode() == after


def expected(value: Any, names: set[str], paths: list[tuple[str, ...]]) -> Any:
    """Remove the fields from a parsed document."""
    if not isinstance(value, dict | list):
        return value
    items = value.items() if isinstance(value, dict) else enumerate(value)
    kept: dict[Any, Any] = {}
    for key, item in items:
        rest = [path[1:] for path in paths if path[0] in ("*", str(key))]
        if (isinstance(value, dict) and key in names) or () in rest:
            continue
        kept[key] = expected(item, names, [path for path in rest if path])
    return kept if isinstance(value, dict) else list(kept.values())


KEYS = st.sampled_from(["ssn", "a", "b", "users", 'x"y', "é\\", "0"])
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=24,
)


@given(DOCUMENTS, st.sampled_from([None, 1]), st.booleans())
def test_any_document_loses_exactly_the_named_fields(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    """Compared with the removal from the parsed document, in several ways of writing it."""
    strip = ["ssn", "users.*.a", "a.b", "*.*.b", "b.0"]
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    paths = [tuple(one.split(".")) for one in strip if "." in one]
    found = FieldFilter(strip).filter(text.encode("utf-8", "surrogatepass"))
    assert json.loads(found) == expected(value, {"ssn"}, paths)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1}{"b":2}',
        b'{"a":1,"a":2}',
        b'{"ssn":1,"s\\u0073n":2}',
        b"NaN",
        b"[Infinity]",
        b"<html>",
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":1}\n{"a":2}\n',
        b"{'a':1}",
        b"[1,]",
        b"[" * 100000,
        b'"\x01"',
    ],
)
def test_what_is_not_one_json_document_is_refused(body: bytes) -> None:
    """A program that reads it otherwise would find the field that was removed for others."""
    with pytest.raises(NotFilterableError):
        FieldFilter(["ssn"]).filter(body)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "*", ".".join("a" * 17)])
def test_a_path_that_can_not_be_meant_is_a_mistake(text: str) -> None:
    """The settings are refused, and nothing is silently not removed."""
    with pytest.raises(ConfigurationError):
        FieldFilter([text])
