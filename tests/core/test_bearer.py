"""The Authorization header: one strict reading of it."""

import pytest

from relay.core.bearer import bearer_token, is_bearer_token
from relay.core.errors import Reason, Refusal

EVERY_CHARACTER = "abyzABYZ0189-._~+/=="


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer a", "a"),
        ("bearer a", "a"),
        ("BEARER a", "a"),
        ("Bearer   a", "a"),
        (" \tBearer a \t", "a"),
        ("Bearer pricing.secret", "pricing.secret"),
        ("Bearer Bearer", "Bearer"),
        (f"Bearer {EVERY_CHARACTER}", EVERY_CHARACTER),
    ],
)
def test_a_bearer_header_gives_its_token(value: str, token: str) -> None:
    """The scheme's case and the spaces do not matter; the token is returned as it is."""
    assert bearer_token([value]) == token
    assert is_bearer_token(token)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer\ta",
        "Bearera",
        "a",
        "Basic YTpi",
        "Basic a Bearer b",
        "Token a",
        "Bearer a b",
        "Bearer a,",
        "Bearer a, Bearer b",
        "Bearer a\tb",
        "Bearer a\r\nX: b",
        "Bearer a\n",
        "Bearer =",
        "Bearer a=b",
        'Bearer "a"',
        "Bearer token=a",
        "Bearer a\xe9",
        "Bearer \u212a",
        "Bearer \u0661",
        "\xa0Bearer a",
        "Bearer\xa0a",
    ],
)
def test_anything_else_is_malformed(value: str) -> None:
    """Another scheme, no token, more than a token, or a character that no token has."""
    assert bearer_token([value]) == Refusal(reason=Reason.TOKEN_MALFORMED)


@pytest.mark.parametrize(
    "text", ["", "=", "a=b", "a b", "a,b", "a\n", "a\r\nCookie: b", '"a"', "\u212a", "\u0661"]
)
def test_a_text_that_no_header_can_carry(text: str) -> None:
    """A credential that would end the header, or begin another one, is no Bearer token."""
    assert not is_bearer_token(text)


def test_no_header_is_missing_and_two_are_repeated() -> None:
    """Two headers are refused even when they are equal: proxies differ in which one they take."""
    assert bearer_token([]) == Refusal(reason=Reason.TOKEN_MISSING)
    assert bearer_token(["Bearer a", "Bearer a"]) == Refusal(reason=Reason.TOKEN_REPEATED)
