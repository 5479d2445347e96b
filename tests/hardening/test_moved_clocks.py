"""A wall clock that is moved under a running relay, forward and back, for a moment and for good.

See "Clocks" in relay/core/README.md: what lasts is measured on the monotonic clock.
"""

import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.moved_clock import MovedClock, relay_with_clock
from tests.support.operators import revoke
from tests.support.relay_process import Relay

HOUR, DAY = 3600, 86_400
MOVES = [
    pytest.param(-HOUR, False, id="an hour back for a moment"),
    pytest.param(-HOUR, True, id="an hour back"),
    pytest.param(2 * HOUR, False, id="two hours ahead for a moment"),
    pytest.param(2 * HOUR, True, id="two hours ahead"),
    pytest.param(8 * DAY, False, id="eight days ahead for a moment"),
]


@pytest.fixture(scope="module")
def running_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, MovedClock]]:
    """A relay whose clock can be moved."""
    with relay_with_clock(tmp_path_factory.mktemp("moved")) as both:
        yield both


@pytest.fixture
def clock(running_relay: tuple[Relay, MovedClock]) -> Iterator[MovedClock]:
    """The relay's clock, which is right before and after each test."""
    yield running_relay[1]
    running_relay[1].move(0)


@pytest.fixture
def relay(running_relay: tuple[Relay, MovedClock], clock: MovedClock) -> Relay:
    """The relay."""
    assert clock is running_relay[1]
    return running_relay[0]


def lasting_session(relay: Relay, **claims: object) -> str:
    """Return a session that is valid at each of the clock's times but the one that is past its revocation's end."""
    return relay.session(iat=int(time.time()) - 12 * HOUR, exp=int(time.time()) + 6 * DAY, **claims)


async def be_busy(relay: Relay, seconds: int) -> None:
    """Use a token, so that the state store has something to do at the clock's time, so many seconds from now."""
    now = int(time.time()) + seconds
    async with relay.connect(await relay.token(relay.session(sub="user-3", iat=now, exp=now + 900))):
        pass


@pytest.mark.parametrize(("seconds", "for_good"), MOVES)
async def test_a_silent_channel_becomes_stale_and_a_fresh_one_does_not(
    relay: Relay, clock: MovedClock, seconds: int, for_good: bool
) -> None:
    """Whatever the clock does, a silent channel is stale after its `silence_ms`, for newcomers too."""
    await relay.publish("trades.BTC-USD", 1)
    session = lasting_session(relay)
    async with relay.connect(
        await relay.token(session, endpoint="trades"), path="/ws/trades", query="?channels=trades.BTC-USD"
    ) as watching:
        await watching.read("subscribed")
        clock.move(seconds)
        await relay.publish("trades.BTC-USD", 2)
        await relay.publish("prices.BTC-USD", 1)
        if not for_good:
            clock.move(0)
        while (frame := await watching.next())["type"] != "status" or frame["state"] != "stale":
            pass
    async with relay.connect(
        await relay.token(session, endpoint="trades"), path="/ws/trades", query="?channels=trades.BTC-USD"
    ) as late:
        assert (await late.read("subscribed"))["channels"][0]["state"] == "stale"
    # silence_ms of prices is 5 s, and the channel of trades was stale after 0.3 s
    async with relay.connect(await relay.token(session), query="?channels=prices.BTC-USD") as fresh:
        assert (await fresh.read("subscribed"))["channels"][0]["state"] == "live"


@pytest.mark.parametrize(("seconds", "for_good"), MOVES)
async def test_a_used_token_stays_used(relay: Relay, clock: MovedClock, seconds: int, for_good: bool) -> None:
    """Somebody connects while the clock is wrong, and the token of before is still refused."""
    token = await relay.token()
    async with relay.connect(token):
        pass
    clock.move(seconds)
    await be_busy(relay, seconds)
    if not for_good:
        clock.move(0)
    with pytest.raises(InvalidStatus) as refused:
        async with relay.connect(token):
            pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(("seconds", "for_good"), MOVES)
async def test_log_outs_and_revocations_are_not_forgotten(
    relay: Relay, clock: MovedClock, seconds: int, for_good: bool
) -> None:
    """A session that was logged out, or whose user was revoked, gets no token at any time of the clock."""
    session, other = (
        lasting_session(relay),
        lasting_session(relay, sub=(user := f"user-{seconds}-{for_good}")),
    )
    for one in (session, other):
        assert (await relay.ask(one)).status_code == 200
    assert (await relay.logout(session)).status_code == 204
    await revoke(relay, sub=user)
    clock.move(seconds)
    for ahead in (seconds, seconds if for_good else 0):
        await be_busy(relay, ahead)
        assert [(await relay.ask(one)).status_code for one in (session, other)] == [401, 401]
        if not for_good:
            clock.move(0)


@pytest.mark.parametrize(("seconds", "for_good"), MOVES)
async def test_connections_and_histories_live_on(
    relay: Relay, clock: MovedClock, seconds: int, for_good: bool
) -> None:
    """No connection is ended by a step of the clock, and what a stream channel remembers stays."""
    for number in range(3):
        published = (await relay.publish("trades.ETH-USD", number)).json()
    session = lasting_session(relay)
    async with relay.connect(
        await relay.token(session, endpoint="trades"), path="/ws/trades", query="?channels=trades.NONE"
    ) as open_:
        await open_.read("subscribed")
        clock.move(seconds)
        await relay.publish("trades.ETH-USD", 4)
        if not for_good:
            clock.move(0)
        heard = None
        while heard != "heartbeat":  # by then each connection was checked several times
            heard = (await open_.next_of_all())["type"]
            assert heard in {"heartbeat", "status"}, heard
        await open_.send(
            type="subscribe",
            channels=["trades.ETH-USD"],
            since={"trades.ETH-USD": {"epoch": published["epoch"], "seq": published["seq"] - 2}},
        )
        (acked,) = (await open_.read("subscribed"))["channels"]
        assert (acked["recovered"], acked["seq"]) == (True, published["seq"] + 1)
