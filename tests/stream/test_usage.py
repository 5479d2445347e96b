"""Which grants a connection has used: counted at its subscriptions, within the bounds of an audit event."""

from relay.core.events import MAX_LIST
from relay.core.scope import Scope
from relay.stream.usage import Usage


def test_a_grant_that_nothing_was_read_by_is_unused() -> None:
    """Each grant of the token is in one of the two lists, for any subscriptions."""
    usage = Usage(Scope(("prices.BTC-USD", "trades.>", "prices.E.*")))
    usage.add(["trades.A", "trades.>"])
    usage.add(["prices.E.1"])
    assert usage.record() == {
        "channels": ["trades.A", "trades.>", "prices.E.1"],
        "subscriptions": 3,
        "scopes": {"used": ["trades.>", "prices.E.*"], "unused": ["prices.BTC-USD"]},
    }


def test_the_narrowest_grant_counts() -> None:
    """A channel that is granted by its name does not use the pattern around it."""
    usage = Usage(Scope(("prices.>", "prices.A", "prices.*")))
    usage.add(["prices.A"])
    assert usage.record()["scopes"] == {"used": ["prices.A"], "unused": ["prices.>", "prices.*"]}


def test_a_refreshed_token_adds_its_grants() -> None:
    """The grants of each of the connection's tokens are in the lists once."""
    usage = Usage(Scope(("prices.A",)))
    usage.add(["prices.A"])
    usage.widen(Scope(("prices.A", "prices.B")))
    assert usage.record()["scopes"] == {"used": ["prices.A"], "unused": ["prices.B"]}


def test_an_audit_event_keeps_the_first_names_only() -> None:
    """A thousand subscriptions are counted, and the first of them are named."""
    usage = Usage(Scope(("prices.>",)))
    names = [f"prices.{number}" for number in range(1000)]
    usage.add(names)
    described = usage.record()
    assert (described["channels"], described["subscriptions"]) == (names[:MAX_LIST], 1000)
