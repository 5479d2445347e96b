"""The client that requested a token is compared with the client that uses it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit.anomalies import ANOMALY_EXPLANATIONS, Anomaly, ClientIdentity
from relay.core.events import Client

IDENTITY = ClientIdentity(b"k" * 32)
CLIENT = Client(address="192.0.2.1", peer="10.0.0.1", user_agent="Mozilla/5.0 (X11)")


def test_every_anomaly_is_explained() -> None:
    """One sentence for each, and for no other."""
    assert set(ANOMALY_EXPLANATIONS) == set(Anomaly)
    assert all(text.endswith(".") for text in ANOMALY_EXPLANATIONS.values())


@pytest.mark.parametrize(
    ("came", "marks"),
    [
        (CLIENT, []),
        (Client(address="192.0.2.1", peer="10.0.0.9", user_agent="Mozilla/5.0 (X11)"), []),
        (Client(address="::ffff:192.0.2.1", user_agent="Mozilla/5.0 (X11)"), []),
        (Client(address="192.0.2.2", user_agent="Mozilla/5.0 (X11)"), [Anomaly.OTHER_ADDRESS]),
        (Client(address="192.0.2.1", user_agent="curl"), [Anomaly.OTHER_BROWSER]),
        (Client(), [Anomaly.OTHER_ADDRESS, Anomaly.OTHER_BROWSER]),
    ],
)
def test_who_comes_is_compared_with_who_asked(came: Client, marks: list[Anomaly]) -> None:
    """Address and User-Agent each; another proxy on the way does not count."""
    assert IDENTITY.differences(IDENTITY.claim("jti", CLIENT), "jti", came) == marks


def test_another_address_of_one_ipv6_network_is_no_other() -> None:
    """Browsers change theirs every day (RFC 8981)."""
    one, other = Client(address="2001:db8::1"), Client(address="2001:db8::2")
    assert IDENTITY.differences(IDENTITY.claim("jti", one), "jti", other) == []


def test_the_claim_tells_nothing() -> None:
    """Two tokens of one browser have nothing in common, and addresses can't be guessed without the key."""
    claims = {
        IDENTITY.claim("one", CLIENT),
        IDENTITY.claim("two", CLIENT),
        ClientIdentity(b"other").claim("one", CLIENT),
    }
    assert len(claims) == 3
    assert all(len(claim) == 24 and claim.isalnum() for claim in claims)


@given(st.text(max_size=40), st.text(max_size=30), st.text(max_size=30))
def test_any_claim_can_be_compared(claim: str, jti: str, agent: str) -> None:
    """Whatever stands in a token or a header, comparing it gives marks and raises nothing."""
    client = Client(address="192.0.2.1", user_agent=agent)
    assert set(IDENTITY.differences(claim, jti, client)) <= {Anomaly.OTHER_ADDRESS, Anomaly.OTHER_BROWSER}
    assert IDENTITY.differences(IDENTITY.claim(jti, client), jti, client) == []
