"""Counts of the audit log's events, by what is bounded."""

from relay.core.errors import Reason
from relay.core.events import Action, Client, Event
from relay.metrics.tally import Key, Tally


def test_events_are_told_apart_by_closed_sets_alone() -> None:
    """A thousand users, addresses and tokens make one count."""
    tally = Tally()
    for number in range(1000):
        tally.add(
            Event(
                action=Action.CONNECT_DENIED,
                reason=Reason.TOKEN_EXPIRED,
                user=f"user-{number}",
                client=Client(address=f"192.0.2.{number}"),
                relay={"token": {"jti": str(number)}},
            )
        )
    tally.add(Event(action=Action.CONNECT_ACCEPTED, endpoint="prices"))
    assert tally.counts() == {
        Key("connect.denied", "failure", "token_expired", ""): 1000,
        Key("connect.accepted", "success", "", "prices"): 1,
    }
