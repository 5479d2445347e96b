"""What a connection used of its grants: told when it subscribes, and kept within a record's bounds."""

from relay.core.events import MAX_LIST
from relay.core.scope import Scope
from relay.stream.usage import Usage


def test_a_grant_that_nothing_was_read_by_is_unused() -> None:
    """Each grant of the token is in one of the two lists, whatever was subscribed to."""
    usage = Usage(Scope(("prices.BTC-USD", "trades.>", "prices.E.*")))
    usage.add(["trades.A", "trades.>"])
    usage.add(["prices.E.1"])
    assert usage.record() == {
        "channels": ["trades.A", "trades.>", "prices.E.1"],
        "subscriptions": 3,
        "scopes": {"used": ["trades.>", "prices.E.*"], "unused": ["prices.BTC-USD"]},
    }


def test_the_narrowest_grant_counts() -> None:
    """Who reads one channel that is granted by its name does not need the pattern around it."""
    usage = Usage(Scope(("prices.>", "prices.A", "prices.*")))
    usage.add(["prices.A"])
    assert usage.record()["scopes"] == {"used": ["prices.A"], "unused": ["prices.>", "prices.*"]}


def test_a_refreshed_token_adds_its_grants() -> None:
    """What any of the connection's tokens granted is accounted for, once."""
    usage = Usage(Scope(("prices.A",)))
    usage.add(["prices.A"])
    usage.widen(Scope(("prices.A", "prices.B")))
    assert usage.record()["scopes"] == {"used": ["prices.A"], "unused": ["prices.B"]}


def test_a_record_keeps_so_many_names() -> None:
    """A thousand subscriptions are counted, and the first of them named."""
    usage = Usage(Scope(("prices.>",)))
    names = [f"prices.{number}" for number in range(1000)]
    usage.add(names)
    described = usage.record()
    assert (described["channels"], described["subscriptions"]) == (names[:MAX_LIST], 1000)
