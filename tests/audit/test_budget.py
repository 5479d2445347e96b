"""How many denials are recorded one by one, and what is only counted."""

import json

import msgspec
import pytest

from relay.audit.budget import BURST, MAX_KEYS, MAX_SESSIONS, SHARES, DenialBudget, SubscriptionBudget
from relay.core.errors import Reason
from relay.core.events import Action, Client, Event, is_denial


def denial(
    address: str = "192.0.2.1",
    user: str = "",
    reason: Reason = Reason.CSRF_FAILED,
    action: Action = Action.TOKEN_DENIED,
) -> Event:
    """Return a denial."""
    return Event(action=action, reason=reason, user=user, client=Client(address=address))


def recorded(budget: DenialBudget, *events: Event) -> int:
    """Tell how many of the events have their own record."""
    return sum(budget.count(event).recorded for event in events)


def test_an_address_has_its_budget_and_others_have_theirs() -> None:
    """The rest of a flood is counted by action and reason, and with who had the most."""
    budget = DenialBudget(each=3)
    assert recorded(budget, *[denial() for _ in range(10)]) == 3
    assert recorded(budget, denial(action=Action.LOGIN_FAILED, reason=Reason.RATE_LIMITED)) == 0
    assert recorded(budget, denial("192.0.2.2")) == 1
    assert budget.end_period() == {
        "denied": {"token.denied": {"csrf_failed": 7}, "login.failed": {"rate_limited": 1}},
        "count": 8,
        "users": {},
        "addresses": {"192.0.2.1": 8},
        "publishers": {},
    }


def test_a_user_has_a_budget_from_all_addresses_together() -> None:
    """A user keeps one budget at several addresses; all users of an address share its budget."""
    budget = DenialBudget(each=3)
    assert recorded(budget, *[denial(f"192.0.2.{host}", "mallory") for host in range(10)]) == 3
    assert recorded(budget, *[denial("198.51.100.1", f"user-{number}") for number in range(10)]) == 3
    overflow = budget.end_period()
    assert overflow is not None
    assert overflow["users"]["mallory"] == 7
    assert overflow["addresses"]["198.51.100.1"] == 7


def test_a_publisher_has_a_budget_and_its_neighbours_have_theirs() -> None:
    """Teams share a network: what one was refused is in the log under its name, however much another floods it."""

    def refused(publisher: str) -> Event:
        return Event(
            action=Action.PUBLISH_DENIED,
            reason=Reason.CHANNEL_FORBIDDEN,
            client=Client(address="192.0.2.1"),
            relay={"publisher": {"id": publisher}},
        )

    budget = DenialBudget(each=3)
    assert recorded(budget, *[refused("flooder") for _ in range(100)]) == 3
    assert recorded(budget, *[refused("neighbour") for _ in range(4)]) == 3
    assert recorded(budget, denial()) == 1
    overflow = budget.end_period()
    assert overflow is not None
    assert overflow["publishers"] == {"flooder": 97, "neighbour": 1}
    assert overflow["addresses"] == {}


def test_an_ipv6_network_has_one_budget() -> None:
    """Its 2^64 addresses are one client's."""
    budget = DenialBudget(each=3)
    assert recorded(budget, *[denial(f"2001:db8::{host:x}") for host in range(10)]) == 3


@pytest.mark.parametrize(
    "reason",
    [
        Reason.TOKEN_REPLAYED,
        Reason.TOKEN_AUDIENCE,
        Reason.TOKEN_ORIGIN,
        Reason.ORIGIN_MISSING,
        Reason.ORIGIN_REFUSED,
    ],
)
def test_each_misused_token_has_a_record_and_its_repetitions_a_budget(reason: Reason) -> None:
    """However many tokens are misused, each has its record. One token, repeated, does not fill the disk."""

    def misused(jti: str) -> Event:
        event = denial(reason=reason, action=Action.CONNECT_DENIED, user="u")
        return msgspec.structs.replace(event, relay={"token": {"jti": jti, "origin": "a"}, "origin": "b"})

    budget = DenialBudget(each=3)
    assert recorded(budget, *[misused(f"token-{number}") for number in range(500)]) == 500
    assert recorded(budget, *[misused("token-0") for _ in range(500)]) == 0
    overflow = budget.end_period()
    assert overflow is not None
    assert overflow["count"] == 500
    assert recorded(budget, misused("token-0")) == 1


def test_a_claim_to_be_somebody_has_no_record_beyond_the_budget() -> None:
    """Anybody can write a token that names a user, as often as they like."""

    def forged(number: int) -> Event:
        event = denial(reason=Reason.ORIGIN_REFUSED, action=Action.CONNECT_DENIED)
        return msgspec.structs.replace(
            event, relay={"claimed": {"jti": f"token-{number}", "user": f"user-{number}"}, "origin": "b"}
        )

    budget = DenialBudget(each=3)
    assert recorded(budget, *map(forged, range(500))) == 3


def test_a_new_minute_is_a_new_budget() -> None:
    """Counted denials are reported once."""
    budget = DenialBudget(each=3)
    recorded(budget, *[denial() for _ in range(10)])
    assert budget.end_period() is not None
    assert budget.end_period() is None
    assert recorded(budget, denial()) == 1


def test_a_flood_from_everywhere_is_bounded() -> None:
    """100,000 addresses write no more records than so many shares, and take no more room than so many keys."""
    budget = DenialBudget(each=1)
    events = (denial(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") for number in range(100_000))
    assert recorded(budget, *events) == SHARES
    assert len(budget._counts) <= MAX_KEYS
    overflow = budget.end_period()
    assert overflow is not None
    assert overflow["count"] == 100_000 - SHARES
    assert len(json.dumps(overflow)) < 500
    assert not budget._counts


def test_a_burst_is_the_clients_own() -> None:
    """From the twentieth denial on it is a burst; refusals that are the relay's doing make none."""
    budget = DenialBudget(each=1000)
    ours = [denial(reason=Reason.DRAINING, action=Action.CONNECT_DENIED) for _ in range(100)]
    assert not any(budget.count(event).burst for event in ours)
    bursts = [budget.count(denial()).burst for _ in range(BURST + 1)]
    assert bursts == [False] * (BURST - 1) + [True, True]
    assert not budget.count(denial("192.0.2.2")).burst


def test_refused_operators_have_a_budget_and_others_none() -> None:
    """A wrong operator key is a denial like another; what an operator did is recorded whatever the number."""
    refused = Event(action=Action.OPERATOR_ACTION, reason=Reason.PUBLISHER_UNKNOWN)
    assert is_denial(refused)
    assert is_denial(denial())
    assert not is_denial(Event(action=Action.OPERATOR_ACTION))
    assert not is_denial(Event(action=Action.CONNECTION_CLOSED, reason=Reason.LINK_LOST))


def subscription(session: str, address: str = "192.0.2.1") -> Event:
    """Return an accepted subscription."""
    return Event(
        action=Action.SUBSCRIBE_ACCEPTED,
        client=Client(address=address),
        relay={"session": {"ref": session}},
    )


def test_a_session_has_a_budget_of_subscriptions() -> None:
    """Its neighbours of the same address have theirs. The next minute begins with a new one."""
    budget = SubscriptionBudget(each=3)
    assert [budget.count(subscription("s1")) for _ in range(5)] == [True] * 3 + [False] * 2
    assert budget.count(subscription("s2"))
    assert budget.end_period() == {"count": 2, "sessions": {"s1": 2}, "addresses": {}}
    assert budget.end_period() is None
    assert budget.count(subscription("s1"))


def test_an_address_has_the_budget_of_many_sessions() -> None:
    """With many sessions one address can't write more than its share, and another address is not concerned."""
    budget = SubscriptionBudget(each=3)
    assert sum(budget.count(subscription(f"s{number}")) for number in range(3 * SHARES + 9)) == 3 * SHARES
    assert budget.count(subscription("s0", "198.51.100.1"))
    overflow = budget.end_period()
    assert overflow == {"count": 9, "sessions": {}, "addresses": {"192.0.2.1": 9}}


def test_the_budgets_of_subscriptions_keep_a_bounded_number_of_sessions() -> None:
    """Sessions and addresses beyond it share one budget."""
    budget = SubscriptionBudget(each=1)
    for number in range(MAX_SESSIONS):
        budget.count(subscription(f"s{number}", f"2001:db8:{number:x}::1"))
    assert len(budget._counts) == MAX_SESSIONS + 1
    assert not budget.count(subscription("another", "203.0.113.1"))
