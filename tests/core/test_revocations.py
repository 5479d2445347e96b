"""Revocations: which tokens and sessions they apply to, by the time of the log-in."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.revocations import Kind, Target, session_is_revoked, token_is_revoked
from relay.core.tokens import Claims

AT = 1_795_319_000.4
"""When the revocation was made."""
SECOND = int(AT)

CLAIMS = Claims(
    issuer="https://app.example.com",
    audience="wss://stream.example.com/ws/prices",
    subject="user-1",
    session_ref="a" * 32,
    channels=("prices.>",),
    origin="https://app.example.com",
    jti="jti-1",
    issued_at=SECOND + 5,
    expires_at=SECOND + 35,
    session_issued_at=SECOND + 1,
)
"""A token of a log-in from after the revocation."""

SESSION = Target(kind=Kind.SESSION, name="a" * 32)
USER = Target(kind=Kind.USER, name="user-1")
TOKEN = Target(kind=Kind.TOKEN, name="jti-1")


def cut_off(claims: Claims, *revoked: Target) -> bool:
    """Tell whether a token is revoked by revocations at `AT`."""
    return token_is_revoked(claims, dict.fromkeys((one.key for one in revoked), AT).get)


@pytest.mark.parametrize("target", [SESSION, USER])
def test_a_token_of_a_later_login_passes(target: Target) -> None:
    """A revocation of a user, or of a session that is known by its user only, is lifted by a new log-in."""
    assert not cut_off(CLAIMS, target)


@pytest.mark.parametrize("target", [SESSION, USER])
@pytest.mark.parametrize(
    ("what", "logged_in", "issued"),
    [
        ("of an old log-in, issued before", -60, -10),
        ("of an old log-in, issued in time and late", -60, 20),
        ("of a log-in in the same second", 0, 5),
        ("of a log-in that nobody knows the time of", None, 5),
        ("of a backend whose clock is ahead, issued before", 2, -1),
        ("issued in the same second", 1, 0),
    ],
)
def test_a_token_is_refused(target: Target, what: str, logged_in: int | None, issued: int) -> None:
    """Everything that is not certain to come from a later log-in."""
    claims = msgspec.structs.replace(
        CLAIMS,
        issued_at=SECOND + issued,
        session_issued_at=None if logged_in is None else SECOND + logged_in,
    )
    assert cut_off(claims, target), what


def test_a_token_that_is_named_is_refused_whenever_it_was_issued() -> None:
    """And no other one."""
    assert cut_off(CLAIMS, TOKEN)
    assert not cut_off(msgspec.structs.replace(CLAIMS, jti="jti-2"), TOKEN)


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(Kind), st.sampled_from(Kind))
def test_no_name_can_pass_for_another_kind(one: str, other: str, kind: Kind, another: Kind) -> None:
    """Keys are equal for the same kind and name only, whatever users and tokens are called."""
    first, second = Target(kind=kind, name=one), Target(kind=another, name=other)
    if Kind.SESSION in (kind, another):  # references are hex, and come from nowhere else
        first, second = (
            replace(target, name="0" * 32) if target.kind is Kind.SESSION else target
            for target in (first, second)
        )
    assert (first.key == second.key) == (first == second)


@pytest.mark.parametrize(
    ("target", "own_id", "issued_at", "gone"),
    [
        (SESSION, True, AT - 60, True),
        (SESSION, True, AT + 60, True),  # a log-out stays, even if the access token is refreshed
        (SESSION, False, AT - 60, True),
        (SESSION, False, AT + 60, False),
        (SESSION, False, 0.0, True),
        (USER, True, AT - 60, True),
        (USER, True, AT + 60, False),
        (USER, False, AT + 60, False),
        (USER, True, 0.0, True),
        (TOKEN, True, AT - 60, False),
    ],
)
def test_a_session_issued_before_a_revocation_is_revoked(
    target: Target, own_id: bool, issued_at: float, gone: bool
) -> None:  # a table
    """The issuer's side of the same rule."""
    found = session_is_revoked(
        ref="a" * 32,
        subject="user-1",
        issued_at=issued_at,
        own_id=own_id,
        revoked_at={target.key: AT}.get,
    )
    assert found is gone
