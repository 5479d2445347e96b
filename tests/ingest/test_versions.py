"""Versions, keys, signs of life and resets, over HTTP and as subscribers see them."""

import json
import time

from tests.support.operators import operate
from tests.support.relay_process import Relay


async def test_a_late_retry_brings_no_old_price_back(relay: Relay) -> None:
    """200, with what it was and where the newer one stands; subscribers hear of the newer ones only."""
    async with relay.connect(await relay.token(channels=["prices.V1"])) as socket:
        await socket.read("subscribed")
        epoch = (await relay.publish("prices.V1", 1, version=1)).json()["epoch"]
        await relay.publish("prices.V1", 3, version=3)
        late = await relay.publish("prices.V1", 2, version=2)
        assert (late.status_code, late.json()) == (
            200,
            {"channel": "prices.V1", "epoch": epoch, "seq": 2, "dropped": "stale"},
        )
        await relay.publish("prices.V1", 4, version=4)
        assert [(await socket.next())["data"] for _ in range(3)] == [1, 3, 4]


async def test_two_publishers_at_once_are_one_to_a_subscriber(relay: Relay) -> None:
    """Each sends everything; no value comes twice and none goes back."""
    async with relay.connect(await relay.token(channels=["prices.V2"])) as socket:
        await socket.read("subscribed")
        first, second = list(range(1, 40)), list(range(1, 40))
        while first or second:
            fast, slow = (first, second) if len(first) >= len(second) else (second, first)
            for queue, count in ((fast, 7), (slow, 3)):
                lines = [
                    json.dumps({"channel": "prices.V2", "data": value, "version": value})
                    for value in queue[:count]
                ]
                del queue[:count]
                body = "\n".join(lines).encode()
                kind = {"Content-Type": "application/x-ndjson"}
                await relay.publish_raw(body, path="/v1/publish/batch", **kind)
        assert [(await socket.next())["data"] for _ in range(39)] == list(range(1, 40))


async def test_a_message_with_a_known_key_is_published_once(relay: Relay) -> None:
    """The answer to the second is the first one's position."""
    first = (await relay.publish("trades.K1", 1, idempotency_key="k")).json()
    await relay.publish("trades.K1", 2)
    again = (await relay.publish("trades.K1", 1, idempotency_key="k")).json()
    assert again == first | {"dropped": "duplicate"}


async def test_a_clock_that_was_an_hour_ahead_is_overcome(relay: Relay) -> None:
    """By the publisher with a higher version_epoch; or by an operator, who is recorded doing it."""
    now = int(time.time() * 1000)
    await relay.publish("prices.V3", 1, version=now + 3_600_000)
    assert (await relay.publish("prices.V3", 2, version=now)).json()["dropped"] == "stale"
    assert "dropped" not in (await relay.publish("prices.V3", 3, version=now, version_epoch=1)).json()
    await relay.publish("prices.V4", 1, version=now + 3_600_000)
    answer = await operate(relay, "POST", "/v1/channels/reset", body={"channel": "prices.V4"})
    assert answer.json() == {"channel": "prices.V4", "reset": True}
    assert (await relay.publish("prices.V4", 2, version=now)).json()["seq"] == 2
    await relay.recorded(
        lambda record: (
            record["event"]["action"] == "operator.action"
            and record["relay"].get("channel") == "prices.V4"
            and record["relay"]["operator"]["id"] == "ops"
        ),
    )


async def test_a_reset_of_what_is_no_channel_is_refused(relay: Relay) -> None:
    """An unknown one is told; a malformed one is 400."""
    answer = await operate(relay, "POST", "/v1/channels/reset", body={"channel": "prices.NEVER"})
    assert answer.json()["reset"] is False
    for body in ({}, {"channel": "a b"}, {"channel": 1}, {"channel": "a", "more": 1}):
        answer = await operate(relay, "POST", "/v1/channels/reset", body=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text


async def test_a_sign_of_life_is_answered(relay: Relay) -> None:
    """With where the channel stands; 0 where nothing was ever published."""
    body = b'{"channel":"prices.L1","alive":true}'
    assert (await relay.publish_raw(body)).json()["seq"] == 0
    await relay.publish("prices.L1", 1)
    assert (await relay.publish_raw(body)).json()["seq"] == 1
    assert (await relay.publish_raw(b'{"channel":"orders.1","alive":true}')).status_code == 403
