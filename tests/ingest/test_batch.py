"""POST /v1/publish/batch: results in order, one bad message spoils no other, and the batch's own bounds."""

import json
from typing import Any

import httpx
import pytest

from tests.support.relay_process import Relay

PATH = "/v1/publish/batch"
NDJSON = "application/x-ndjson"


async def batch(relay: Relay, *messages: bytes, kind: str = "application/json") -> httpx.Response:
    """Publish messages, each as it is, in one of the two forms."""
    lines, array = b"\n".join(messages) + b"\n", b'{"messages":[' + b",".join(messages) + b"]}"
    body = lines if kind == NDJSON else array
    return await relay.publish_raw(body, path=PATH, **{"Content-Type": kind})


def message(channel: str, data: Any) -> bytes:
    """Return one message."""
    return json.dumps({"channel": channel, "data": data}).encode()


@pytest.mark.parametrize("kind", ["application/json", NDJSON, "Application/JSON; charset=utf-8"])
async def test_results_come_in_order(relay: Relay, kind: str) -> None:
    """One result a message, each with its number, and subscribers get each of them in order."""
    channel = f"prices.{'N' if kind == NDJSON else 'J' if kind[0] == 'a' else 'C'}"
    async with relay.connect(await relay.token(channels=[channel])) as socket:
        await socket.read("subscribed")
        answer = await batch(relay, *(message(channel, index) for index in range(5)), kind=kind)
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert [(result["channel"], result["seq"]) for result in results] == [
            (channel, seq) for seq in range(1, 6)
        ]
        frames = [await socket.next() for _ in range(5)]
        assert [frame["data"] for frame in frames] == list(range(5))


@pytest.mark.parametrize("kind", ["application/json", NDJSON])
async def test_one_bad_message_spoils_no_other(relay: Relay, kind: str) -> None:
    """Malformed, forbidden and oversized messages have their error at their place; the rest is published."""
    answer = await batch(
        relay,
        message("prices.GOOD", 1),
        b'{"channel":"prices.BAD","data":NaN}' if kind == NDJSON else b'{"channel":"prices.BAD"}',
        message("orders.1", 1),
        b'{"channel":"prices.BAD","data":"\xff"}',
        message("prices.BAD", "x" * 65_536),
        b'{"channel":"prices.BAD","data":1,"data":2}',
        b"[1]",
        message("prices.GOOD", 2),
        kind=kind,
    )
    results = answer.json()["results"]
    assert answer.status_code == 200
    assert [result.get("code") for result in results] == [
        None,
        "invalid_request",
        "forbidden",
        "invalid_request",
        "too_large",
        "invalid_request",
        "invalid_request",
        None,
    ]
    assert all(set(result) == {"code", "message", "retryable"} for result in results[1:-1])
    assert results[-1]["seq"] == results[0]["seq"] + 1


async def test_an_empty_batch_is_nothing(relay: Relay) -> None:
    """No messages, no results; blank lines are no messages."""
    assert (await batch(relay)).json() == {"results": []}
    assert (await batch(relay, b"", b" ", kind=NDJSON)).json() == {"results": []}
    assert (await batch(relay, b"", message("prices.E", 1) + b"\r", b"", kind=NDJSON)).json()["results"][0][
        "seq"
    ] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"messages":null}',
        b'{"messages":{}}',
        b'{"messages":[1,]}',
        b'{"messages":[1 2]}',
        b'{"messages":[',
        b'{"messages":[]}x',
        b'{"messages":[]}{"messages":[]}',
        b'{"messages":[],"messages":[]}',
        b'{"messages":[],"other":[]}',
        b'{"other":[],"messages":[]}',
        b'{"messages":[],"\\u006dessages":[]}',
        b'{"\\u006dessages":[]}',
        b'{"messages":' + b"[" * 100_000,
        b"\xef\xbb\xbf" + b'{"messages":[]}',
        "\ufeff{}".encode("utf-16"),
    ],
)
async def test_an_envelope_that_is_not_whole_is_400(relay: Relay, body: bytes) -> None:
    """Nothing else beside the one list, and that only once: of two lists one would be lost unseen."""
    answer = await relay.publish_raw(body, path=PATH)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text


async def test_a_message_called_messages_is_no_second_list(relay: Relay) -> None:
    """The word inside a message's data is data."""
    answer = await batch(relay, message("prices.WORD", {"messages": [1], "x": '}"messages":['}))
    assert answer.json()["results"][0]["channel"] == "prices.WORD"


async def test_the_envelope_may_have_white_space(relay: Relay) -> None:
    """JSON is free in its white space."""
    body = b' \r\n{\t"messages" : [ ' + message("prices.SPACE", 1) + b" \n] } \n"
    assert (await relay.publish_raw(body, path=PATH)).json()["results"][0]["seq"] == 1


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_another_content_type_is_400(relay: Relay, kind: str) -> None:
    """A batch says which of the two forms it has."""
    answer = await relay.publish_raw(b'{"messages":[]}', path=PATH, **{"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_batch_has_its_bounds(relay: Relay) -> None:
    """1000 messages and 1 MiB pass, one more of either is 413 and nothing of it is published."""
    tick = message("prices.BOUND", 1)
    assert len((await batch(relay, *[tick] * 1000)).json()["results"]) == 1000
    for kind in ("application/json", NDJSON):
        answer = await batch(relay, *[tick] * 1001, kind=kind)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    large = b'{"messages":[' + b" " * (1 << 20) + b"]}"
    assert (await relay.publish_raw(large, path=PATH)).status_code == 413
    assert (await relay.publish("prices.BOUND", 1)).json()["seq"] == 1001


async def test_refusals_of_a_batch_are_one_record_a_reason(relay: Relay) -> None:
    """A thousand bad messages write one line, with their number, not a thousand."""
    await batch(relay, *[message("orders.FLOOD", 1)] * 1000)
    record = await relay.recorded(lambda record: "orders.FLOOD" in str(record["relay"].get("detail")))
    assert record["relay"]["count"] == 1000
    assert str(relay.audit()).count("orders.FLOOD") == 1
