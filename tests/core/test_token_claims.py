"""Scoped tokens: the form of the text and of each claim."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core import tokens
from relay.core.errors import Reason
from relay.core.tokens import (
    examine,
    mint,
)
from tests.support.jws_forgery import b64, forge
from tests.support.scoped_tokens import (
    CLAIMS,
    EXPECTED,
    HEADER,
    KEY,
    KEYS,
    NOW,
    PAYLOAD,
    PRIVATE,
    claims_reason,
    reason,
)

# --- form


@pytest.mark.parametrize(
    "change", ["{}=", "{}==", " {}", "{} ", "{}\n", "\ufeff{}", "Bearer {}", '"{}"', "{}.", "{}.e30"]
)
def test_a_token_with_anything_around_it_is_malformed(change: str) -> None:
    """A good token with anything around it is not that token."""
    assert reason(change.format(mint(CLAIMS, KEY))) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("place", ["iat", "exp", "jti", "aud", "channels"])
def test_a_claim_that_stands_twice_is_refused(place: str) -> None:
    """Parsers differ in which one wins, so none does."""
    twice = json.dumps(PAYLOAD)[:-1] + f", {json.dumps(place)}: {json.dumps(PAYLOAD[place])}}}"
    assert reason(forge(HEADER, twice.encode(), PRIVATE)) is Reason.TOKEN_MALFORMED


def test_a_header_member_that_stands_twice_is_refused() -> None:
    """The same for the header, where a second alg might be the one that counts elsewhere."""
    twice = b'{"alg":"none","typ":"scoped+jwt","kid":"key-1","alg":"EdDSA"}'
    assert reason(forge(twice, PAYLOAD, PRIVATE)) is Reason.TOKEN_MALFORMED


def test_a_token_of_5_megabytes_is_too_large() -> None:
    """Too large, whatever is in it."""
    assert reason(mint(CLAIMS, KEY) + "A" * 5_000_000) is Reason.TOKEN_TOO_LARGE
    assert reason("." * 5_000_000) is Reason.TOKEN_TOO_LARGE


@given(
    st.text(st.characters(), max_size=300) | st.binary(max_size=100).map(lambda data: f"{b64(data)}.e30.AAAA")
)
@example("\ud800.\ud800.\ud800")
def test_any_text_is_refused_with_a_reason(text: str) -> None:
    """Whatever comes is refused with a reason, and nothing raises."""
    assert reason(text) is not None


wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*HEADER, "crit", "b64", "jku"]), wild, max_size=3),
    st.dictionaries(st.sampled_from([*PAYLOAD, "session_exp", "x"]), wild, max_size=4),
)
def test_any_signed_claims_are_examined_without_an_error(
    header: dict[str, Any], payload: dict[str, Any]
) -> None:
    """Validly signed nonsense gets a reason too: `examine` explains it, `verify` refuses it, neither raises."""
    text = forge(HEADER | header, PAYLOAD | payload, PRIVATE)
    if reason(text) is None:
        assert header.keys() | payload.keys() <= {*HEADER, *PAYLOAD, "session_exp"}
    for refusal in examine(text, KEYS, now=NOW, expected=None).refusals:
        assert str(refusal).endswith(".")


@given(
    st.dictionaries(
        st.sampled_from([*PAYLOAD, "session_exp", "session_iat", "asker", "min_interval_ms", "x"]),
        wild
        | st.sampled_from(["", 1, True, 1.0, float(NOW), 0, -1, 2**53 - 1, 2**53, 2**64, 10**31, [], ["a"]]),
        max_size=3,
    ),
    st.sets(st.sampled_from(list(PAYLOAD)), max_size=1),
)
@example({"ver": True}, set())
@example({"ver": 1.0, "iat": float(NOW)}, set())
@example({"session_exp": None}, set())
@example({"asker": ""}, set())
def test_the_quick_check_of_claims_has_the_verdict_of_the_slow_one(
    changed: dict[str, Any], missing: set[str]
) -> None:
    """Whatever the claims are, the check that names each wrong one finds as much with the quick one before it."""
    payload = {name: value for name, value in (PAYLOAD | changed).items() if name not in missing}
    text = forge(HEADER, payload, PRIVATE)
    quick = examine(text, KEYS, now=NOW, expected=EXPECTED).refusals
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_is_well_formed", lambda _payload: False)
        assert examine(text, KEYS, now=NOW, expected=EXPECTED).refusals == quick


# --- claims

TEXTS = ["iss", "aud", "sub", "jti", "scope", "sid"]
TIMES = ["iat", "nbf", "exp"]


@pytest.mark.parametrize("name", PAYLOAD)
def test_each_of_the_twelve_claims_is_required(name: str) -> None:
    """All twelve are required."""
    assert claims_reason(without=name) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", ["", 1, 1.5, True, None, [], ["x"], {}, {"x": 1}])
def test_texts_of_another_type(name: str, value: object) -> None:
    """An empty text, a number, a list around the right text: none of them is the text."""
    assert claims_reason({name: value}) is Reason.TOKEN_CLAIMS
    assert claims_reason({name: [PAYLOAD[name]]}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("name", [*TIMES, "session_exp"])
@pytest.mark.parametrize(
    "value", [str(NOW), "", NOW + 0.5, float(NOW), True, None, [NOW], {}, 0, -1, 2**53, 10**31]
)
def test_times_of_another_type(name: str, value: object) -> None:
    """Whole seconds as a number; neither a text nor a fraction, and nothing that overflows a calendar."""
    assert claims_reason({name: value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(
    "value",
    [
        [],
        "prices.>",
        None,
        1,
        {},
        {"0": "a"},
        [1],
        [None],
        [["a"]],
        ["a", ""],
        ["a b"],
        [">.a"],
        ["é"],
        ["a"] * 33,
        ["a" * 65],
    ],
    ids=str,
)
def test_channels_of_another_form(value: object) -> None:
    """1 to 32 channels or patterns."""
    assert claims_reason({"channels": value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("value", [None, 1, [], ["https://app.example.com"], {}])
def test_origin_of_another_type(value: object) -> None:
    """A text, possibly empty."""
    assert claims_reason({"origin": value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("value", [0, 2, "1", 1.0, True, None, [1]])
def test_another_version_than_1_is_refused(value: object) -> None:
    """Version 1, the number."""
    assert claims_reason({"ver": value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("name", ["admin", "roles", "cnf", "act", "", "ISS"])
def test_an_unknown_claim_is_refused(name: str) -> None:
    """The issuer writes no others; somebody else's claim must not be believed to be understood."""
    assert claims_reason({name: 1}) is Reason.TOKEN_CLAIMS


def test_session_end_is_optional() -> None:
    """With it and without it the token is good."""
    assert claims_reason({"session_exp": NOW + 9}) is None
    assert claims_reason() is None
