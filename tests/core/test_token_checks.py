"""Scoped tokens: time, what they are for, and their examination."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from relay.core.errors import Reason
from relay.core.tokens import (
    Expected,
    examine,
)
from tests.support.jws_forgery import forge
from tests.support.scoped_tokens import AUDIENCE, EXPECTED, HEADER, KEYS, NOW, PAYLOAD, PRIVATE, claims_reason

# --- time


@pytest.mark.parametrize(
    ("lifetime", "accepted"), [(1, True), (30, True), (31, False), (0, False), (-5, False), (604_800, False)]
)
def test_a_token_that_lives_longer_than_30_seconds_is_refused(lifetime: int, *, accepted: bool) -> None:
    """A token that claims more than 30 seconds is refused even in its first one."""
    wanted = None if accepted else Reason.TOKEN_LIFETIME
    assert claims_reason({"exp": NOW + lifetime}) is wanted


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        *[
            (0, None),
            (-1, None),
            (-2, None),
            (-2.1, "not_yet_valid"),
            (-3, "not_yet_valid"),
            (-60, "not_yet_valid"),
        ],
        *[(1, None), (3, None), (29, None), (30, None), (31, None), (31.9, None)],
        *[(32, "expired"), (33, "expired"), (60, "expired"), (90, "expired"), (1e9, "expired")],
    ],
)
def test_two_seconds_of_clock_skew_are_accepted(skew: float, expected: str | None) -> None:
    """Two seconds either way, counted from iat and from exp."""
    assert claims_reason(now=NOW + skew) is (Reason(f"token_{expected}") if expected else None)


@pytest.mark.parametrize(("ahead", "accepted"), [(0, True), (2, True), (3, False), (60, False)])
def test_a_token_before_its_nbf_is_refused(ahead: int, *, accepted: bool) -> None:
    """nbf is checked for itself, with the same leeway."""
    assert claims_reason({"nbf": NOW + ahead}) is (None if accepted else Reason.TOKEN_NOT_YET_VALID)


# --- what it is for


@pytest.mark.parametrize(
    "audience",
    [
        "wss://stream.example.com/ws/price",
        "wss://stream.example.com/ws/prices2",
        "wss://stream.example.com/ws/prices/",
        "wss://stream.example.com:443/ws/prices",
        "WSS://stream.example.com/ws/prices",
        "wss://Stream.example.com/ws/prices",
        "wss://stream.example.com/ws/Prices",
        "wss://stream.example.com/ws/prices?x=1",
        "wss://stream.example.com/ws/%70rices",
        "wss://stream.example.com",
        "ws://stream.example.com/ws/prices",
        "https://stream.example.com/ws/prices",
        "wss://stream.example.com./ws/prices",
        " wss://stream.example.com/ws/prices",
        "*",
    ],
)
def test_an_audience_must_be_equal_character_for_character(audience: str) -> None:
    """Equal, character for character; both ways round, so that no prefix matches."""
    assert claims_reason({"aud": audience}) is Reason.TOKEN_AUDIENCE
    assert claims_reason(expected=replace(EXPECTED, audience=audience)) is Reason.TOKEN_AUDIENCE


def test_audience_in_a_list() -> None:
    """RFC 7519 allows lists; a scoped token is for one endpoint."""
    assert claims_reason({"aud": [AUDIENCE]}) is Reason.TOKEN_CLAIMS
    assert claims_reason({"aud": [AUDIENCE, "wss://other.example"]}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iss": "https://evil.example"}, Reason.TOKEN_ISSUER),
        ({"iss": "https://app.example.com/"}, Reason.TOKEN_ISSUER),
        ({"scope": "publish"}, Reason.TOKEN_SCOPE),
        ({"scope": "subscribe publish"}, Reason.TOKEN_SCOPE),
        ({"scope": "Subscribe"}, Reason.TOKEN_SCOPE),
        ({"origin": ""}, Reason.TOKEN_ORIGIN),
        ({"origin": "null"}, Reason.TOKEN_ORIGIN),
        ({"origin": "https://app.example.com.evil.example"}, Reason.TOKEN_ORIGIN),
        ({"origin": "https://app.example.com:443"}, Reason.TOKEN_ORIGIN),
    ],
    ids=str,
)
def test_other_issuer_scope_origin(change: dict[str, Any], expected: Reason) -> None:
    """Each is compared as it stands."""
    assert claims_reason(change) is expected


def test_origin_left_to_the_caller() -> None:
    """With `origin` None in what is expected, the caller compares it; everything else is checked."""
    later = replace(EXPECTED, origin=None)
    assert claims_reason({"origin": "https://evil.example"}, expected=later) is None
    assert (
        claims_reason({"aud": "x", "origin": "https://evil.example"}, expected=later) is Reason.TOKEN_AUDIENCE
    )


def test_a_caller_without_origin() -> None:
    """A token that a server-side caller got is good where no Origin comes, and nowhere else."""
    nobody = replace(EXPECTED, origin="")
    assert claims_reason({"origin": ""}, expected=nobody) is None
    assert claims_reason(expected=nobody) is Reason.TOKEN_ORIGIN


# --- examining


def reasons(text: str, expected: Expected | None) -> list[Reason]:
    return [refusal.reason for refusal in examine(text, KEYS, now=NOW + 100, expected=expected).refusals]


def test_examine_names_every_reason() -> None:
    """A person who corrects a token wants to see all its mistakes at once."""
    payload = PAYLOAD | {"aud": "x", "iss": "y", "scope": "z", "origin": "o", "exp": NOW + 40}
    text = forge(HEADER | {"typ": "JWT", "jku": "x"}, payload, Ed25519PrivateKey.generate())
    endpoint = [Reason.TOKEN_ISSUER, Reason.TOKEN_AUDIENCE, Reason.TOKEN_SCOPE, Reason.TOKEN_ORIGIN]
    own = [
        Reason.TOKEN_HEADER,
        Reason.TOKEN_HEADER,
        Reason.TOKEN_SIGNATURE,
        Reason.TOKEN_LIFETIME,
        Reason.TOKEN_EXPIRED,
    ]
    assert reasons(text, EXPECTED) == own + endpoint
    assert reasons(text, None) == own


def test_examine_names_every_claim_that_is_wrong() -> None:
    """Each in a sentence of its own; times and names of the wrong type are then not compared."""
    payload = PAYLOAD | {"sub": "", "exp": "soon", "channels": [], "ver": 2, "origin": 1, "x": 1}
    del payload["jti"]
    found = examine(forge(HEADER, payload, PRIVATE), KEYS, now=NOW, expected=EXPECTED).refusals
    assert [refusal.reason for refusal in found] == [Reason.TOKEN_CLAIMS] * 7
    for refusal, name in zip(found, ["jti", "x", "sub", "exp", "origin", "ver", "channels"], strict=True):
        assert name in refusal.detail


def test_examine_of_no_token_has_one_reason() -> None:
    """There is nothing to show, and one reason."""
    found = examine("garbage", KEYS, now=NOW, expected=EXPECTED)
    assert (found.header, found.payload, len(found.refusals)) == ({}, {}, 1)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200,
        forge(HEADER, PAYLOAD | {"iss": "\x1b" * 500}, PRIVATE),
        forge(HEADER, PAYLOAD | {"\x1b[2J\n" * 50: 1}, PRIVATE),
        forge(HEADER | {"\x1b[2J\n" * 50: 1}, PAYLOAD, PRIVATE),
        forge(HEADER | {"alg": "\x1b" * 500}, PAYLOAD, PRIVATE),
    ],
    ids=["garbage", "issuer", "claim", "header member", "alg"],
)
def test_details_stay_short(text: str) -> None:
    """A detail goes into a log; what an attacker wrote into a token neither fills it nor steers a terminal."""
    refusals = examine(text, KEYS, now=NOW, expected=EXPECTED).refusals
    assert refusals
    for refusal in refusals:
        assert len(str(refusal)) < 500
        assert str(refusal).isprintable()
