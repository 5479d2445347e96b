"""A publisher reads its own channels back, and operators read all."""

import httpx
import pytest

from tests.support.operators import OPS, READER, REVOKER
from tests.support.publisher_socket import ALL_CHANNELS_KEY
from tests.support.relay_process import PUBLISHER_KEY, Relay


async def read(relay: Relay, path: str, key: str = PUBLISHER_KEY) -> httpx.Response:
    """GET from the internal listener with the publisher's key."""
    return await relay.get_internal(path, key=key)


@pytest.mark.parametrize("channel", ["prices.READ", "prices.EUR/USD", "prices.EURUSD+", "prices.a/value"])
async def test_a_value_is_read_back_byte_for_byte(relay: Relay, channel: str) -> None:
    """With its position, time and state. Without a value, seq is 0."""
    empty = (await read(relay, f"/v1/channels/{channel}/value")).json()
    assert empty == {"channel": channel, "epoch": "", "seq": 0, "state": "stale"}
    position = await relay.publish_raw(
        f'{{"channel":"{channel}","data":{{"p": 1.10}},"source_ts":5}}'.encode()
    )
    answer = await read(relay, f"/v1/channels/{channel}/value")
    assert answer.content.endswith(b'"data":{"p": 1.10}}')
    assert answer.headers["cache-control"] == "private, no-store"
    value = answer.json()
    assert {"channel": value["channel"], "epoch": value["epoch"], "seq": value["seq"]} == position.json()
    assert (value["source_ts"], value["state"]) == (5, "live")


async def test_a_key_reads_its_own_channels_only(relay: Relay) -> None:
    """Others are 403, also by a pattern that is wider than the key's. A wrong key is 401."""
    for path in (
        "/v1/channels/orders.1/value",
        "/v1/values?channel=orders.1",
        "/v1/values?channel=prices.A&channel=>",
        "/v1/values?channel=*.A",
    ):
        assert (await read(relay, path)).status_code == 403, path
        assert (await read(relay, path, key=ALL_CHANNELS_KEY)).status_code == 200, path
        assert (await read(relay, path, key=READER)).status_code == 200, path
        assert (await read(relay, path, key=OPS)).status_code == 200, path
        assert (await read(relay, path, key=REVOKER)).status_code == 403, path
        for wrong in ("pricing.wrong", "nobody.secret"):
            assert (await read(relay, path, key=wrong)).status_code == 401, path
    await relay.audited("operator.action", reason="operator_unknown")


@pytest.mark.parametrize(
    "query", ["", "?channel=", "?channel=a..b", "?channels=prices.A", "?channel=prices.A&limit=1"]
)
async def test_another_form_is_refused(relay: Relay, query: str) -> None:
    """With a sentence."""
    answer = await read(relay, f"/v1/values{query}")
    assert answer.status_code == 400
    assert len(answer.json()["message"]) > 20


async def test_patterns_read_many_values(relay: Relay) -> None:
    """By name, and no more than 200."""
    for number in (2, 1):
        await relay.publish(f"prices.MANY.{number}", number)
    answer = (await read(relay, "/v1/values?channel=prices.MANY.*&channel=prices.MANY.1")).json()
    assert [(value["channel"], value["data"]) for value in answer["values"]] == [
        ("prices.MANY.1", 1),
        ("prices.MANY.2", 2),
    ]
    assert answer["more"] is False
    for number in range(201):
        await relay.publish(f"prices.MORE.{number}", number)
    answer = (await read(relay, "/v1/values?channel=prices.MORE.*")).json()
    assert (len(answer["values"]), answer["more"]) == (200, True)
