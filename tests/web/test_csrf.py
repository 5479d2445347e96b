"""The CSRF check: the order of the proofs, and that no header can make it fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Reason
from relay.web.csrf import CsrfOptions, check_csrf
from tests.support.http_requests import make_request

OWN, TRUSTED, EVIL = "https://app.example.com", "https://admin.example.com", "https://evil.example"
Fields = list[tuple[str | bytes, str | bytes]]

COOKIE = ("Cookie", "access-token=x")
BEARER = ("Authorization", "Bearer x")
HEADER = ("X-Relay-CSRF", "1")


def allowed(*fields: tuple[str | bytes, str | bytes], require_header: bool = False) -> bool:
    """Tell whether a request with these headers passes."""
    options = CsrfOptions(origins=frozenset({OWN, TRUSTED}), require_header=require_header)
    refusal = check_csrf(make_request(*fields), options)
    assert refusal is None or refusal.reason is Reason.CSRF_FAILED
    return refusal is None


@pytest.mark.parametrize(
    "fields",
    [
        [COOKIE, ("Origin", OWN)],
        [COOKIE, ("Origin", TRUSTED), ("Sec-Fetch-Site", "same-site")],
        [COOKIE, ("Sec-Fetch-Site", "same-origin")],
        [COOKIE, HEADER],
        [HEADER],
        [BEARER],
        [BEARER, ("Origin", OWN)],
        [("Authorization", "bearer x")],
    ],
)
def test_each_proof_suffices(fields: Fields) -> None:
    """A trusted Origin, or a same-origin fetch, or the header, or a Bearer token without a cookie is enough."""
    assert allowed(*fields)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [COOKIE],
        [COOKIE, ("Origin", EVIL), HEADER, ("Sec-Fetch-Site", "same-origin")],
        [COOKIE, ("Sec-Fetch-Site", "same-site"), HEADER],
        [COOKIE, BEARER],
        [BEARER, ("Origin", EVIL)],
        [BEARER, ("Origin", "")],
        [BEARER, BEARER],
        [("Authorization", "Basic x")],
        [("Authorization", "Bearer")],
        [("Authorization", "BearerX y")],
    ],
)
def test_a_wrong_proof_is_not_outvoted(fields: Fields) -> None:
    """A foreign Origin refuses the request in any case. Basic, and Bearer with a cookie, prove nothing."""
    assert not allowed(*fields)


def test_the_header_can_be_required() -> None:
    """With csrf.require_header Origin or fetch metadata alone are not enough; Bearer alone still is."""
    assert not allowed(COOKIE, ("Origin", OWN), require_header=True)
    assert not allowed(COOKIE, ("Sec-Fetch-Site", "same-origin"), require_header=True)
    assert not allowed(COOKIE, ("Origin", EVIL), HEADER, require_header=True)
    assert allowed(COOKIE, ("Origin", OWN), HEADER, require_header=True)
    assert allowed(COOKIE, HEADER, require_header=True)
    assert allowed(BEARER, require_header=True)
    assert allowed(BEARER, ("Origin", OWN), require_header=True)


names = st.sampled_from(["origin", "sec-fetch-site", "x-relay-csrf", "authorization", "cookie", "host"])
values = st.binary(max_size=60) | st.sampled_from([b"same-origin", b"1", b"null", b"Bearer x", OWN.encode()])


@given(st.lists(st.tuples(names, values), max_size=8))
def test_any_headers_get_a_verdict(fields: Fields) -> None:
    """The check answers for any headers, and allows a request only if a proof is there."""
    if allowed(*fields):
        given_ = [(name, bytes(value)) for name, value in fields if isinstance(value, bytes)]
        origins = [value for name, value in given_ if name == "origin"]
        assert origins in ([], [OWN.encode()])
        proofs = {
            ("origin", OWN.encode()),
            ("sec-fetch-site", b"same-origin"),
            ("x-relay-csrf", b"1"),
        }
        bearer = any(name == "authorization" and value[:7].lower() == b"bearer " for name, value in given_)
        assert proofs & set(given_) or (bearer and not any(name == "cookie" for name, _ in given_))
