"""`parse_request` and `Policy` alone: every body is a request, a refusal, or malformed."""

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import MalformedError, Refusal
from relay.core.patterns import covers, is_pattern
from relay.issuer.policy import MAX_SUMS, EndpointTerms, Grant, Policy
from relay.issuer.service import IssuerOptions, TokenRequest, parse_request

ORIGIN = "https://app.example.com"
OPTIONS = IssuerOptions(
    issuer=ORIGIN,
    ttl_s=30,
    max_s=604_800,
    leeway_s=60,
    endpoints={"prices": EndpointTerms(audience="wss://s.example.com/ws/prices", channels=("prices.>",))},
    default_endpoint="prices",
    allowed_origins=frozenset({ORIGIN}),
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
patterns = st.from_regex(r"(prices|depth)(\.(BTC-USD|\*|[A-Z]{1,3}))?(\.>)?", fullmatch=True)
bodies = st.dictionaries(
    st.sampled_from(["endpoint", "channels", "origin", "x"]), values
) | st.fixed_dictionaries(
    {},
    optional={
        "endpoint": st.just("prices"),
        "channels": st.lists(patterns, max_size=40),
        "origin": st.just(ORIGIN),
    },
)


@given(bodies, st.sampled_from(["", ORIGIN, "https://evil.example"]), st.booleans())
def test_any_body_is_decided(body: dict[str, Any], origin: str, bearer: bool) -> None:
    """An accepted request has a known endpoint, at most 32 patterns, and an origin that may connect."""
    with contextlib.suppress(MalformedError):
        request = parse_request(body, OPTIONS, origin=origin, bearer=bearer)
        if isinstance(request, TokenRequest):
            assert request.endpoint in OPTIONS.endpoints
            assert request.origin in ("", ORIGIN)
            assert request.origin == origin or bearer
            assert request.channels is None or 0 < len(request.channels) <= 32
            assert all(is_pattern(channel) for channel in request.channels or ())
        else:
            assert isinstance(request, Refusal)


@given(st.lists(patterns, max_size=5), st.none() | st.lists(patterns, max_size=32))
def test_nothing_is_granted_beyond_the_roles(granted: list[str], asked: list[str] | None) -> None:
    """Every granted channel lies in a pattern of the role; all that was asked for is in it or named as rejected."""
    policy = Policy({"role": {"prices": Grant(channels=tuple(granted))}})
    given_, rejected = policy.sum_of(["role", "unknown"], "prices").decide(
        None if asked is None else tuple(asked)
    )
    assert all(any(covers(pattern, channel) for pattern in granted) for channel in given_)
    if asked is not None:
        assert set(asked) - set(rejected) <= set(given_)
    assert policy.sum_of(["role"], "depth").decide(None) == ((), ())


def test_a_role_with_more_than_fits_is_cut_to_32() -> None:
    """A request without channels gets the first 32 patterns, as many as a token can hold."""
    policy = Policy({"role": {"prices": Grant(channels=tuple(f"prices.A{index}" for index in range(40)))}})
    granted, rejected = policy.sum_of(["role"], "prices").decide(None)
    assert (len(granted), rejected) == (32, ())


def test_sums_of_roles_stay_right_and_bounded() -> None:
    """Users with roles of their own don't fill the memory, and each gets what its roles grant, the second time too."""
    policy = Policy(
        {f"role-{n}": {"prices": Grant(channels=(f"prices.A{n}",))} for n in range(MAX_SUMS + 10)}
    )
    for _ in range(2):
        for number in range(MAX_SUMS + 10):
            roles = (f"role-{number}", "unknown")
            assert policy.sum_of(roles, "prices").decide(None) == ((f"prices.A{number}",), ())
            assert not policy.sum_of(roles, "depth").any
            assert len(policy._sums) <= MAX_SUMS
