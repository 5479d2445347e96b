"""Publishing over HTTP, against small real servers and against the relay itself."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from relay.client import Backoff, BatchError, Message, Publisher, PublishError, Receipt
from relay.core.errors import ConfigurationError
from tests.support.relay_process import PUBLISHER_KEY, running
from tests.support.scripted_servers import answer, http_server

KEY = "pricing.secret"
TAKEN = {"channel": "prices.A", "epoch": "e1", "seq": 1}


def _publisher(url: str, **options: Any) -> Publisher:
    return Publisher(url, KEY, transport="http", backoff=lambda: Backoff(first_s=0, cap_s=0), **options)


async def test_a_value_is_posted_in_its_envelope_with_the_key() -> None:
    """A value goes out in its envelope with the key, and its position comes back."""
    async with http_server(answer(200, TAKEN)) as server, _publisher(server.url) as publisher:
        receipt = await publisher.publish("prices.A", {"bid": "1.10"}, source_ts=7)
    assert receipt == Receipt(channel="prices.A", epoch="e1", seq=1)
    [(path, headers, body)] = server.requests
    assert path == "/v1/publish"
    assert headers["authorization"] == "Bearer pricing.secret"
    assert body == b'{"channel":"prices.A","source_ts":7,"data":{"bid":"1.10"}}'


async def test_many_values_are_one_request() -> None:
    """A batch is one request of NDJSON; refused values have their place among the results."""
    refused = {"code": "forbidden", "message": "Not yours.", "retryable": False}
    messages: list[Message | tuple[str, Any]] = [
        ("prices.A", 1),
        Message(channel="orders.1", data=b"2"),
        ("prices.*", 3),
    ]
    reply = answer(200, {"results": [TAKEN, refused]})
    async with http_server(reply) as server, _publisher(server.url) as publisher:
        results = await publisher.publish_many(messages)
    assert results[0] == Receipt(channel="prices.A", epoch="e1", seq=1)
    assert isinstance(results[1], PublishError)
    assert (results[1].code, results[1].message) == ("forbidden", "Not yours.")
    assert isinstance(results[2], PublishError)
    assert "not a channel" in results[2].message
    [(path, headers, body)] = server.requests
    assert (path, headers["content-type"]) == ("/v1/publish/batch", "application/x-ndjson")
    assert body == b'{"channel":"prices.A","data":1}\n{"channel":"orders.1","data":2}\n'


async def test_nothing_to_publish_asks_nobody() -> None:
    """No messages, or only such as can't be sent, make no request."""
    async with http_server(answer(500)) as server, _publisher(server.url) as publisher:
        assert await publisher.publish_many([]) == []
        [result] = await publisher.publish_many([("no channel", 1)])
        assert isinstance(result, PublishError)
    assert server.requests == []


async def test_a_busy_relay_is_asked_again() -> None:
    """429 and 503 are tried again until they pass."""
    busy = {"code": "unavailable", "message": "Later.", "retryable": True}
    answers = [
        answer(503, busy),
        answer(429, busy, retry_after="0"),
        answer(502, b"<html>"),
        answer(200, TAKEN),
    ]
    async with http_server(*answers) as server, _publisher(server.url) as publisher:
        assert (await publisher.publish("prices.A", 1)).seq == 1
    assert len(server.requests) == 4
    assert len({body for _, _, body in server.requests}) == 1


async def test_a_relay_that_stays_busy_ends_in_an_error() -> None:
    """A relay that stays busy ends in an error that says so."""
    busy = {"code": "unavailable", "message": "Later.", "retryable": True}
    async with http_server(answer(503, busy)) as server, _publisher(server.url, attempts=3) as publisher:
        with pytest.raises(PublishError, match="Later") as caught:
            await publisher.publish("prices.A", 1)
    assert (caught.value.status, caught.value.retryable) == (503, True)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 413])
async def test_a_final_refusal_is_raised_at_once(status: int) -> None:
    """What would be the same next time is raised at once, with code, message and status."""
    refused = {"code": "no", "message": "Never.", "retryable": False}
    async with http_server(answer(status, refused)) as server, _publisher(server.url) as publisher:
        with pytest.raises(PublishError, match="Never") as caught:
            await publisher.publish("prices.A", 1)
    error = caught.value
    assert (error.code, error.message, error.status, error.retryable) == ("no", "Never.", status, False)
    assert len(server.requests) == 1


async def test_a_lost_connection_is_tried_again() -> None:
    """A server that hangs up in the middle of a request is asked once more."""
    body = json.dumps(TAKEN).encode()
    calls: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"data":1}')
        calls.append(1)
        if len(calls) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, _publisher(url) as publisher:
        assert (await publisher.publish("prices.A", 1)).seq == 1
    assert len(calls) == 2


async def test_nobody_there_is_unreachable() -> None:
    """Without anybody at the address every attempt fails, and the address is in the sentence."""
    async with _publisher("http://127.0.0.1:9", attempts=2) as publisher:
        with pytest.raises(PublishError, match=r"127\.0\.0\.1:9") as caught:
            await publisher.publish("prices.A", 1)
    assert (caught.value.code, caught.value.retryable) == ("unreachable", True)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"channel":"a","epoch":1,"seq":2}', b'{"results":[]}']
)
async def test_other_servers_are_recognised(body: bytes) -> None:
    """A 200 of something that is no relay is not taken for a success."""
    async with http_server(answer(200, body)) as server, _publisher(server.url) as publisher:
        with pytest.raises(PublishError) as caught:
            await publisher.publish("prices.A", 1)
        assert caught.value.code == "unexpected_answer"
        with pytest.raises(PublishError) as caught:
            await publisher.publish_many([("prices.A", 1)])
        assert caught.value.code == "unexpected_answer"


async def test_a_batch_that_breaks_off_tells_what_was_done() -> None:
    """The results of the requests before the one that failed are in the error."""
    results = {"results": [TAKEN] * 100}
    refused = {"code": "invalid_key", "message": "Wrong key.", "retryable": False}
    answers = (answer(200, results), answer(401, refused))
    async with http_server(*answers) as server, _publisher(server.url, window=100) as publisher:
        with pytest.raises(BatchError, match="Wrong key") as caught:
            await publisher.publish_many(("prices.A", number) for number in range(2500))
    assert len(caught.value.done) == 100
    assert len(server.requests) == 2


async def test_batches_stay_below_a_mebibyte() -> None:
    """Large values are cut into more requests than their number alone would take."""
    value = b'"' + b"x" * 60_000 + b'"'
    async with http_server(answer(200, {"results": []})) as server, _publisher(server.url) as publisher:
        with pytest.raises(BatchError):
            await publisher.publish_many([("prices.A", value)] * 20)
    assert len(server.requests[0][2]) <= 1 << 20
    assert server.requests[0][2].count(b"\n") == 17


@pytest.mark.parametrize("key", ["", "k3y", ".k3y", "k3y.", "k3y 1.k3y", "name.k3\ny", "kéy.k3y"])
def test_bad_keys_are_refused_unseen(key: str) -> None:
    """A key that can't be one is refused in a sentence that doesn't repeat it."""
    with pytest.raises(ConfigurationError) as caught:
        Publisher("http://127.0.0.1:9", key)
    assert "relay keys publisher" in str(caught.value)
    assert "k3" not in str(caught.value)


def test_the_key_is_in_no_repr() -> None:
    """A publisher that is printed by accident keeps its key."""
    assert "secret" not in repr(Publisher("http://127.0.0.1:9", KEY))


async def test_it_must_be_entered() -> None:
    """Outside of `async with` there is no pool, and the sentence says what to do."""
    with pytest.raises(RuntimeError, match="async with"):
        await Publisher("http://127.0.0.1:9", KEY).publish("prices.A", 1)


async def test_the_real_relay_takes_it(tmp_path: Path) -> None:
    """One by one and in batches: positions grow, and what is wrong is refused alone."""
    with running(tmp_path) as relay:
        async with Publisher(relay.internal_url, PUBLISHER_KEY, transport="http") as publisher:
            first = await publisher.publish("prices.A", {"bid": "1.10"})
            second = await publisher.publish("prices.A", b'{"bid": 1.20000000000000000001}')
            assert (first.seq, second.seq, first.epoch) == (1, 2, second.epoch)
            results = await publisher.publish_many(
                [("prices.A", 1), ("orders.1", 1), ("prices.A", b'{"a":1,"a":2}'), ("prices.B", [1, 2])]
            )
            assert [result.seq for result in results if isinstance(result, Receipt)] == [3, 1]
            codes = [result.code for result in results if isinstance(result, PublishError)]
            assert codes == ["forbidden", "invalid_request"]
            many = await publisher.publish_many(("prices.A", number) for number in range(2500))
            assert [result.seq for result in many if isinstance(result, Receipt)] == list(range(4, 2504))
        async with Publisher(relay.internal_url, "pricing.wrong", transport="http") as publisher:
            with pytest.raises(PublishError) as caught:
                await publisher.publish("prices.A", 1)
            assert (caught.value.code, caught.value.status) == ("invalid_key", 401)
