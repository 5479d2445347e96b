"""Audit events: every action is described, and nothing from outside can stretch or break a record."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import Reason
from relay.core.events import (
    ACTION_EXPLANATIONS,
    MAX_DEPTH,
    MAX_LIST,
    MAX_TEXT,
    Action,
    Client,
    Event,
    clip,
    to_record,
)

ECS_CATEGORIES = {"authentication", "network", "session", "api", "configuration", "intrusion_detection"}
ECS_TYPES = {"start", "end", "allowed", "denied", "access", "change", "error", "info"}


def record(event: Event) -> dict[str, Any]:
    cut: dict[str, Any] = clip(
        to_record(event, timestamp="2026-11-22T06:00:00.000Z", event_id="e1", node="n1")
    )
    return cut


@pytest.mark.parametrize("action", Action)
def test_every_action_is_described(action: Action) -> None:
    """A sentence, a category and a type of the Elastic Common Schema, and an outcome."""
    assert ACTION_EXPLANATIONS[action].endswith(".")
    event = record(Event(action=action))["event"]
    assert event["action"] == action.value
    assert set(event["category"]) <= ECS_CATEGORIES
    assert set(event["type"]) <= ECS_TYPES
    refused = action.value.endswith((".denied", "_denied", ".failed", ".gap", "denials.aggregated"))
    assert event["outcome"] == ("failure" if refused else "success")


def test_no_sentence_without_an_action() -> None:
    """The explanations are exactly those of the actions, and differ."""
    assert set(ACTION_EXPLANATIONS) == set(Action)
    assert len(set(ACTION_EXPLANATIONS.values())) == len(Action)


def test_every_field_stands_where_the_elastic_common_schema_has_it() -> None:
    """Every field is in its place of the Elastic Common Schema."""
    event = Event(
        action=Action.CONNECT_DENIED,
        reason=Reason.TOKEN_REPLAYED,
        user="u1",
        client=Client(address="203.0.113.7", peer="10.0.0.1", user_agent="Mozilla"),
        status=401,
        path="/ws/prices",
        relay={"token": {"jti": "j1"}, "channels": ("a", "b")},
    )
    assert record(event) == {
        "@timestamp": "2026-11-22T06:00:00.000Z",
        "event": {
            "id": "e1",
            "action": "connect.denied",
            "category": ["network"],
            "type": ["denied"],
            "outcome": "failure",
            "reason": "token_replayed",
        },
        "service": {"node": {"name": "n1"}},
        "user": {"id": "u1"},
        "client": {"ip": "203.0.113.7"},
        "source": {"ip": "10.0.0.1"},
        "user_agent": {"original": "Mozilla"},
        "http": {"response": {"status_code": 401}},
        "url": {"path": "/ws/prices"},
        "relay": {"token": {"jti": "j1"}, "channels": ["a", "b"]},
    }


def test_what_is_unknown_is_left_out() -> None:
    """An event without details has no empty fields."""
    assert set(record(Event(action=Action.LOGOUT))) == {"@timestamp", "event", "service", "relay"}


def test_long_texts_are_cut() -> None:
    """A megabyte from outside makes a line of some hundred bytes, and the line shows that it was cut."""
    cut = clip({"a": "x" * 1_000_000, "k" * 1_000_000: 1, "b": b"y" * 1_000_000})
    assert isinstance(cut, dict)
    assert cut["a"] == "x" * (MAX_TEXT - 1) + "…"
    assert all(len(key) <= MAX_TEXT for key in cut)
    assert len(cut["b"]) == MAX_TEXT
    assert clip("x" * MAX_TEXT) == "x" * MAX_TEXT


def test_lists_mappings_and_nesting_are_cut() -> None:
    """Neither many entries nor many levels make a long line, or a recursion error."""
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert clip([1] * 1000) == [1] * MAX_LIST
    assert len(clip({str(n): n for n in range(1000)})) == MAX_LIST
    assert json.dumps(clip(deep)).count("{") == MAX_DEPTH


def test_numbers_that_are_not_json_become_text() -> None:
    """NaN and infinity would make a line that strict parsers refuse."""
    assert clip([float("nan"), float("inf"), 1.5, True, None, 7]) == ["nan", "inf", 1.5, True, None, 7]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters()), inner) | st.tuples(inner, inner)
    ),
)


@given(st.text(st.characters()), anything)
@example("\ud800\r\n\x1b[2J\u2028\x00", {"\udfff": ["\ud800" * 300]})
def test_any_record_is_one_line_of_strict_json(text: str, value: object) -> None:
    """Line breaks, ANSI, lone surrogates, NaN: what comes out is one line of UTF-8 JSON, and it parses."""
    client = Client(address=text, peer=text, user_agent=text)
    event = Event(action=Action.LOGOUT, user=text, client=client, path=text, relay={"x": value, text: 1})
    line = json.dumps(record(event), allow_nan=False).encode()
    assert b"\n" not in line
    assert b"\x1b" not in line
    assert json.loads(line)["event"]["action"] == "logout"
    json.dumps(record(event), ensure_ascii=False).encode("utf-8")


@given(st.text(st.characters(), max_size=600))
@example("\ud800" * 300)
def test_no_text_is_longer_than_allowed(text: str) -> None:
    """Also when escaping makes it longer: a lone surrogate becomes six characters."""
    assert len(str(clip(text))) <= MAX_TEXT
