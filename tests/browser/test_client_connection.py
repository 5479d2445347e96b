"""relay-client.js against a scripted relay: getting in, losing the connection, and coming back."""

from typing import Any

import pytest

from tests.support.chromium import require_playwright
from tests.support.client_cases import COMPRESSION_ASKED, FINAL_CLOSES, RETRIED_CLOSES
from tests.support.scripted_relay import ScriptedRelay, Tab

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEARLY_ONE = "Math.random = () => 0.999999"


async def connect(tab: Tab, relay: ScriptedRelay, **options: Any) -> None:
    """Start a stream and get it to `open` with a heartbeat that does not matter."""
    await tab.start(relay, **options)
    await (await relay.accept()).welcome(heartbeat_ms=600_000)
    await tab.state("open")


async def test_every_attempt_carries_a_new_token_as_subprotocol_and_none_in_the_url(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A token opens one connection, and URLs end up in logs."""
    await tab.start(relay, channels=["prices.>"])
    first = await relay.accept()
    assert first.offered == "relay.v1, bearer.token-1"
    assert "token" not in first.query
    await first.close(1012)
    await tab.wait_out(await tab.state("waiting"))
    assert (await relay.accept()).offered == "relay.v1, bearer.token-2"


@pytest.mark.plain_only("It is about what the page asks for by itself, or is told to ask for.")
async def test_compression_is_asked_for_where_an_interval_collects_values(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Whichever channel has one, and also if the URL names none, because a channel is resumed."""
    start = """({ compress, intervals }) => {
      stream.close();
      again({ compress });
      intervals.forEach((interval_ms) => follow(`prices.${interval_ms}`, { interval_ms }));
    }"""
    await tab.start(relay)
    await (await relay.accept()).welcome()
    for compress, intervals, asks in COMPRESSION_ASKED:
        given = {} if compress is None else {"compress": compress}
        await tab.page.evaluate(start, {"intervals": intervals, **given})
        for is_resumed in (False, True):
            peer = await relay.accept()
            assert peer.compressed == asks, (compress, intervals, is_resumed)
            assert ("channels" in peer.query) == (bool(intervals) and not is_resumed)
            if is_resumed:
                break
            await peer.welcome()
            ack = [{"channel": f"prices.{ms}", "mode": "stream"} for ms in intervals]
            await peer.send({"type": "subscribed", "channels": ack, "rejected": []})
            first = {"type": "snapshot", "epoch": "e1", "seq": 1, "ts": 1, "data": 1}
            await peer.send(*({"channel": f"prices.{ms}", **first} for ms in intervals))
            for _ in intervals:
                await tab.next("onSnapshot")
            await peer.close(1012)
            await tab.wait_out(await tab.state("waiting"))


async def test_the_back_off_doubles_from_half_a_second_to_twenty_with_full_jitter(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The ceiling grows; the wait is anywhere below it."""
    await tab.start(relay)
    await tab.page.evaluate(f"{NEARLY_ONE}; window.refusal = {{ status: 503 }}")
    await (await relay.accept()).close(1013)
    ceilings = []
    for _ in range(8):
        change = await tab.state("waiting")
        ceilings.append(round(change["retryInMs"]))
        await tab.wait_out(change)
    assert ceilings == [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]
    await tab.page.evaluate("Math.random = () => 0.1")
    await tab.wait_out(await tab.state("waiting"))
    assert (await tab.state("waiting"))["retryInMs"] == 2000


async def test_ten_good_seconds_start_the_back_off_anew_and_less_does_not(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A server that accepts and drops connections must not get two attempts a second without end."""
    await tab.start(relay)
    await tab.page.evaluate(NEARLY_ONE)
    waits = []
    for good_ms in (9_000, 9_000, 10_000):
        peer = await relay.accept()
        await peer.welcome(heartbeat_ms=600_000)
        await tab.state("open")
        await tab.clock.run_for(good_ms)
        await peer.close(1012)
        change = await tab.state("waiting")
        waits.append(round(change["retryInMs"]))
        await tab.wait_out(change)
    assert waits == [500, 1000, 500]


@pytest.mark.parametrize("code", RETRIED_CLOSES)
async def test_these_close_codes_come_back(tab: Tab, relay: ScriptedRelay, code: int) -> None:
    """Restarts, lost links, refused tokens, unknown codes, and everything from 4000 to 4499."""
    await tab.start(relay)
    peer = await relay.accept()
    await peer.welcome()
    await tab.state("open")
    await peer.close(code, "why")
    change = await tab.state("waiting")
    assert change["code"] == code
    await tab.wait_out(change)
    assert (await relay.accept()).offered.endswith("token-2")


@pytest.mark.parametrize("code", FINAL_CLOSES)
async def test_these_close_codes_stop(tab: Tab, relay: ScriptedRelay, code: int) -> None:
    """Bugs, refusals that stay, and everything from 4500 on: no further token is asked for."""
    await tab.start(relay)
    peer = await relay.accept()
    await peer.welcome()
    await peer.close(code, "why")
    signed_out = {"signedOut": True} if code == 4501 else {}
    assert await tab.state("stopped") == {"state": "stopped", "code": code, "reason": "why"} | signed_out
    await tab.clock.run_for(60_000)
    assert await tab.page.evaluate("[window.tokens, stream.state]") == [1, "stopped"]


async def test_a_planned_restart_is_waited_for_as_long_as_the_server_says(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The server has spread its clients; the client's own jitter would undo that."""
    await tab.start(relay)
    peer = await relay.accept()
    await peer.welcome()
    await peer.send({"type": "reconnect", "delay_ms": 1834})
    await peer.close(1012)
    assert (await tab.state("waiting"))["retryInMs"] == 1834


async def test_two_refused_upgrades_move_on_to_the_first_message_where_the_reason_can_be_seen(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A browser sees every refused upgrade as 1006; a close code after the upgrade says more.

    An event stream is tried before: here the two requests are answered by something that is no relay.
    """
    relay.refusing = 4
    await tab.start(relay)
    for _ in range(4):
        change = await tab.state("waiting")
        assert change["code"] == 1006
        await tab.wait_out(change)
    peer = await relay.accept()
    assert peer.offered == ""
    assert peer.query == {}
    assert await peer.next() == {"type": "auth", "token": "token-5"}
    await peer.close(3000, "invalid_token")
    change = await tab.state("waiting")
    assert (change["code"], change["reason"]) == (3000, "invalid_token")


async def test_one_refused_upgrade_now_and_then_does_not_change_the_transport(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Only two in a row do."""
    await tab.start(relay)
    for _ in range(2):
        peer = await relay.accept()
        assert "bearer." in peer.offered
        relay.refusing = 1
        await peer.close(1012)
        await tab.wait_out(await tab.state("waiting"))
        await tab.wait_out(await tab.state("waiting"))
    assert "bearer." in (await relay.accept()).offered


async def test_a_server_that_never_says_welcome_is_left(tab: Tab, relay: ScriptedRelay) -> None:
    """An open socket is not yet a stream."""
    await tab.start(relay, transports=["first_message"])
    peer = await relay.accept()
    await peer.next()
    await tab.clock.run_for(10_000)
    change = await tab.state("waiting")
    assert (change["code"], change["reason"]) == (1006, "no_welcome")
    assert await peer.gone() == 1000


async def test_closing_closes_the_socket_and_nothing_follows(tab: Tab, relay: ScriptedRelay) -> None:
    """`close()` is final, also from within a listener."""
    await tab.start(relay, channels=["prices.>"])
    peer = await relay.accept()
    await peer.welcome()
    await tab.state("open")
    await tab.page.evaluate("stream.on('state', () => stream.close()); stream.close()")
    assert await tab.state("closed") == {"state": "closed", "code": 1000, "reason": ""}
    assert await peer.gone() == 1000
    await tab.clock.run_for(60_000)
    assert await tab.page.evaluate("[window.tokens, stream.state]") == [1, "closed"]


@pytest.mark.plain_only("No connection is opened.")
async def test_closing_while_a_token_is_asked_for_opens_no_socket(tab: Tab, relay: ScriptedRelay) -> None:
    """What comes back afterwards belongs to nobody, and the request is aborted."""
    aborted = await tab.page.evaluate(
        """async (endpoint) => {
          const { createStream } = await import('/client/relay-client.js');
          let give, signal, sockets = 0;
          const Real = WebSocket;
          window.WebSocket = class extends Real { constructor(...all) { super(...all); sockets++; } };
          const stream = createStream({ getToken: (attempt) => {
            signal = attempt.signal;
            return new Promise((resolve) => (give = resolve));
          } });
          await Promise.resolve();
          stream.close();
          give({ wsToken: 'late', endpoint });
          await new Promise((resolve) => queueMicrotask(() => queueMicrotask(resolve)));
          return [signal.aborted, sockets, stream.state];
        }""",
        relay.endpoint,
    )
    assert aborted == [True, 0, "closed"]
