"""Sessions that are signed JWTs: which kinds of tokens pass, and when."""

from dataclasses import replace
from typing import Any

import pytest

from relay.core.errors import Reason, Refusal
from relay.core.tokens import Claims, SigningKey, mint
from relay.sessions.signed import SignedVerifier
from tests.support.signed_sessions import ED25519, NOW, OPTIONS, public_pem, reason, session, token

# --- kinds of tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"token_use": "refresh"},
        {"token_use": None},
        {"token_use": ["access"]},
        {"token_use": "Access"},
        {"token_use": True},
    ],
    ids=str,
)
async def test_a_refresh_token_is_no_session(changes: dict[str, Any]) -> None:
    """Validly signed by the same backend, for something else."""
    assert await reason(token(changes)) is Reason.SESSION_INVALID
    assert await reason(token(without="token_use")) is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    ("wanted", "claim"), [(True, 1), (1, True), (1, 1.5), ("1", 1), (1, "1"), (False, 0), (0, None)]
)
async def test_required_values_have_a_type(wanted: str | float | bool, claim: object) -> None:
    """True is not 1, although Python says so. 1 and 1.0 are one number in JSON."""
    verifier = SignedVerifier(replace(OPTIONS, require={"mark": wanted}))
    assert (await session(token({"mark": wanted}), verifier)).subject == "user-7"
    assert await reason(token({"mark": claim}), verifier) is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    ("typ", "header", "accepted"),
    [
        *[
            ("at+jwt", "at+jwt", True),
            ("at+jwt", "application/AT+JWT", True),
            ("application/at+jwt", "at+jwt", True),
        ],
        *[
            ("at+jwt", "JWT", False),
            ("at+jwt", None, False),
            ("at+jwt", "", False),
            ("at+jwt", ["at+jwt"], False),
        ],
    ],
)
async def test_the_typ_is_compared_as_a_media_type(typ: str, header: object, *, accepted: bool) -> None:
    """Compared as a media type (RFC 7515 §4.1.9)."""
    verifier = SignedVerifier(replace(OPTIONS, require={}, typ=typ))
    assert await reason(token(typ=header), verifier) is (None if accepted else Reason.SESSION_INVALID)


@pytest.mark.parametrize(
    ("audience", "accepted"),
    [
        *[("relay", True), (["relay"], True), (["other", "relay"], True)],
        *[
            ("relay2", False),
            ("", False),
            ([], False),
            (["other"], False),
            (None, False),
            ({"relay": 1}, False),
            ([["relay"]], False),
        ],
    ],
)
async def test_the_audience_is_one_text_or_a_list_that_has_it(audience: object, *, accepted: bool) -> None:
    """One, or a list that has it (RFC 7519 §4.1.3)."""
    verifier = SignedVerifier(replace(OPTIONS, require={}, audience="relay"))
    assert await reason(token({"aud": audience}), verifier) is (None if accepted else Reason.SESSION_INVALID)
    assert await reason(token(), verifier) is Reason.SESSION_INVALID


@pytest.mark.parametrize("issuer", ["https://other", "https://backend/", None, ["https://backend"], ""])
async def test_another_issuer_than_the_configured_one_is_refused(issuer: object) -> None:
    """Exactly the one of the settings, where one is set."""
    verifier = SignedVerifier(replace(OPTIONS, issuer="https://backend"))
    assert (await session(token({"iss": "https://backend"}), verifier)).subject == "user-7"
    assert await reason(token({"iss": issuer}), verifier) is Reason.SESSION_INVALID
    assert await reason(token(), verifier) is Reason.SESSION_INVALID


@pytest.mark.parametrize("typ", ["scoped+jwt", "SCOPED+JWT", "application/scoped+jwt"])
async def test_a_scoped_token_is_never_a_session(typ: str) -> None:
    """Not even one that the backend itself signed, with every claim of a session."""
    assert await reason(token(typ=typ)) is Reason.SESSION_INVALID


async def test_our_own_scoped_token_is_no_session() -> None:
    """The setting with which it could pass is the issuer's key as the session's key; it still does not."""
    claims = Claims(
        issuer="https://app.example.com",
        audience="wss://stream.example.com/ws/prices",
        subject="user-7",
        session_ref="0" * 32,
        channels=("prices.>",),
        origin="",
        jti="A" * 22,
        issued_at=NOW,
        expires_at=NOW + 30,
    )
    options = replace(OPTIONS, algorithm="EdDSA", key=public_pem(ED25519), require={"scope": "subscribe"})
    text = mint(claims, SigningKey(kid="k", key=ED25519))
    result = await SignedVerifier(options).verify(text, now=NOW)
    assert isinstance(result, Refusal)
    assert "scoped token" in result.detail


# --- time


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        *[(0, None), (839, None), (841, None), (899.9, None)],
        *[(900, Reason.SESSION_EXPIRED), (604_800, Reason.SESSION_EXPIRED)],
        *[(-120, None), (-121, Reason.SESSION_INVALID)],
    ],
)
async def test_an_expired_token_has_a_reason_of_its_own(skew: float, expected: Reason | None) -> None:
    """Expired is an answer of its own: a refresh makes it good. The leeway is a minute."""
    assert await reason(token(), now=NOW + skew) is expected


@pytest.mark.parametrize(("ahead", "accepted"), [(-60, True), (60, True), (61, False)])
async def test_a_token_before_its_nbf_is_refused(ahead: int, *, accepted: bool) -> None:
    """nbf counts where it is set."""
    assert await reason(token({"nbf": NOW + ahead})) is (None if accepted else Reason.SESSION_INVALID)


async def test_a_token_that_never_ends() -> None:
    """exp is required."""
    assert await reason(token(without="exp")) is Reason.SESSION_INVALID


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [str(NOW), "", True, [NOW], {}, 0, -1, 2**53, 10**30, NOW * 1000])
async def test_times_of_another_type(name: str, value: object) -> None:
    """Numbers, and such as a calendar has."""
    assert await reason(token({name: value})) is Reason.SESSION_INVALID


async def test_a_leeway_of_its_own() -> None:
    """Backends with bad clocks get more."""
    verifier = SignedVerifier(replace(OPTIONS, leeway_s=60))
    assert await reason(token(), verifier, now=NOW + 899) is None
    assert await reason(token(), verifier, now=NOW + 900) is Reason.SESSION_EXPIRED


async def test_a_token_with_another_fault_is_not_called_expired() -> None:
    """A wrong token is not called expired, because no refresh would repair it."""
    assert await reason(token({"token_use": "refresh", "exp": NOW - 900})) is Reason.SESSION_INVALID
