"""Scoped tokens for other services: a scope of their own, and no channels."""

from typing import Any

import pytest
from msgspec.structs import replace

from relay.core.errors import Reason, Refusal
from relay.core.tokens import SERVICE_SCOPE, Claims, Expected, examine, mint, verify
from tests.support.jws_forgery import forge
from tests.support.scoped_tokens import CLAIMS, EXPECTED, HEADER, KEY, KEYS, NOW, PAYLOAD, PRIVATE

AT_SERVICE = replace(EXPECTED, audience="https://reports.example.com/v1/export", scope=SERVICE_SCOPE)
SERVICE = replace(CLAIMS, audience=AT_SERVICE.audience, scope=SERVICE_SCOPE, channels=())
WITHOUT_CHANNELS = {name: value for name, value in PAYLOAD.items() if name != "channels"}


def verified(text: str, expected: Expected = AT_SERVICE) -> Claims | Reason:
    """Return the claims of an accepted token, or why it is refused."""
    result = verify(text, KEYS, now=NOW, expected=expected)
    return result.reason if isinstance(result, Refusal) else result[0]


def forged(**changes: Any) -> str:
    """Return a validly signed token for the service, with changes."""
    return forge(HEADER, {**WITHOUT_CHANNELS, "aud": SERVICE.audience, "scope": "call", **changes}, PRIVATE)


def test_what_was_minted_is_verified() -> None:
    """The claims come back as they went in, and the payload names no channels at all."""
    text = mint(SERVICE, KEY)
    assert verified(text) == SERVICE
    payload = examine(text, KEYS, now=NOW, expected=None).payload
    assert payload.keys() == WITHOUT_CHANNELS.keys() | {"session_exp"}


def test_channels_may_be_absent_or_empty() -> None:
    """Both say the same."""
    for text in (forged(), forged(channels=[])):
        claims = verified(text)
        assert isinstance(claims, Claims)
        assert claims.channels == ()


@pytest.mark.parametrize(
    "channels", [["prices.>"], [""], [[]], None, 0, False, "", {}, "prices.>", ["a"] * 33], ids=str
)
def test_any_other_channels_are_refused(channels: object) -> None:
    """A token is of one kind: with channels it can't be one for a service."""
    assert verified(forged(channels=channels)) is Reason.TOKEN_CLAIMS


def test_a_token_for_sockets_still_needs_channels() -> None:
    """Absent and empty are for services alone."""
    for scope in ("subscribe", "publish", "Call", "call "):
        both: tuple[dict[str, Any], ...] = ({}, {"channels": []})
        for changes in both:
            text = forged(scope=scope, **changes)
            assert verified(text, replace(AT_SERVICE, scope=scope)) is Reason.TOKEN_CLAIMS


def test_each_kind_is_refused_where_the_other_belongs() -> None:
    """Even if the same URL were both, the scope would tell them apart."""
    assert verified(mint(SERVICE, KEY), replace(AT_SERVICE, scope="subscribe")) is Reason.TOKEN_SCOPE
    assert verified(mint(CLAIMS, KEY), replace(EXPECTED, scope=SERVICE_SCOPE)) is Reason.TOKEN_SCOPE
    assert verified(mint(SERVICE, KEY), EXPECTED) is Reason.TOKEN_AUDIENCE
    assert verified(mint(CLAIMS, KEY)) is Reason.TOKEN_AUDIENCE


@pytest.mark.parametrize(
    "claims",
    [
        replace(SERVICE, channels=("prices.>",)),
        replace(SERVICE, scope="subscribe"),
        replace(SERVICE, scope=""),
    ],
)
def test_what_would_be_refused_is_not_minted(claims: Claims) -> None:
    """A mistake shows where it was made."""
    with pytest.raises(ValueError, match="can't be minted"):
        mint(claims, KEY)
