"""Publishing over a WebSocket: frames, credit, and what breaks; against a small server that forgets when told to."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.client import Backoff, BatchError, Message, Publisher, PublishError, Receipt
from tests.support.scripted_ingest import KEY, ingest_server, refused


def _publisher(url: str, **options: Any) -> Publisher:
    options.setdefault("backoff", lambda: Backoff(first_s=0, cap_s=0))
    return Publisher(url, KEY, transport="websocket", **options)


async def _until(condition: Any) -> None:
    """Wait for something that other tasks of this loop bring about, and that tells nobody."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # nothing tells when it becomes true
            await asyncio.sleep(0.001)


async def test_a_value_is_sent_with_an_id_and_its_ack_is_a_receipt() -> None:
    """The key goes with the handshake, a value is one line with an id, and the ack becomes a receipt."""
    async with ingest_server() as ingest, _publisher(ingest.url) as publisher:
        receipt = await publisher.publish("prices.A", {"bid": "1.10"}, version=7, source_ts=5)
    assert receipt == Receipt(channel="prices.A", epoch="e1")
    assert receipt.position is None
    [request] = ingest.handshakes
    assert (request.path, request.headers["Authorization"]) == ("/v1/ingest", f"Bearer {KEY}")
    assert ingest.frames == [
        [
            {
                "type": "publish",
                "id": 1,
                "channel": "prices.A",
                "version": 7,
                "source_ts": 5,
                "data": {"bid": "1.10"},
            }
        ]
    ]


async def test_many_values_share_frames_and_keep_their_order() -> None:
    """A thousand values are a few frames of 256 at most, in order; what is refused has its place among the results."""
    async with (
        ingest_server(forbidden=frozenset({"orders.1"})) as ingest,
        _publisher(ingest.url) as publisher,
    ):
        results = await publisher.publish_many(
            [*(("prices.A", n) for n in range(999)), ("orders.1", 1), ("prices.*", 1), ("prices.A", 999)]
        )
    assert ingest.data("prices.A") == list(range(1000))
    assert max(map(len, ingest.frames)) == 256
    assert len(ingest.frames) <= 6
    assert [place for place, result in enumerate(results) if isinstance(result, PublishError)] == [999, 1000]
    assert isinstance(results[999], PublishError)
    assert (results[999].code, results[999].message) == ("forbidden", "Not yours.")


async def test_a_trickle_is_gathered_within_milliseconds() -> None:
    """What comes while an ack is awaited goes out together, and waits for no more than 5 ms."""
    async with ingest_server(acks_after=50) as ingest, _publisher(ingest.url) as publisher:
        await publisher.send("prices.A", 0)
        await _until(lambda: ingest.frames)
        for number in range(1, 50):
            await publisher.send("prices.A", number)
            await asyncio.sleep(0)
        await _until(lambda: len(ingest.data("prices.A")) == 50)
    assert 2 <= len(ingest.frames) <= 25


async def test_a_fast_caller_waits_for_the_relay() -> None:
    """No more is sent than the credit allows, and no more accepted than the window holds."""
    async with (
        ingest_server(credit=10, acks_after=10) as ingest,
        _publisher(ingest.url, window=20) as publisher,
    ):
        for number in range(200):
            await publisher.send("prices.A", number)
        assert len(ingest.taken) >= 200 - 20
        await publisher.flush()
        assert ingest.data("prices.A") == list(range(200))
    assert ingest.most_unacked == 10


async def test_a_mute_relay_holds_the_caller() -> None:
    """Without acks the window fills, and the next call waits."""
    async with ingest_server(is_mute=True) as ingest, _publisher(ingest.url, window=20) as publisher:
        for number in range(20):
            await publisher.send("prices.A", number)
        waiting = asyncio.create_task(publisher.send("prices.A", 20))
        await _until(lambda: len(ingest.taken) == 20)
        assert not waiting.done()
        waiting.cancel()
        ingest.is_mute = False
        ingest.cut()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, 60), max_size=5), acks_after=st.integers(1, 40), credit=st.integers(40, 300)
)
async def test_cut_anywhere_nothing_is_lost_and_streams_repeat_nothing(
    cuts: list[int], acks_after: int, credit: int
) -> None:
    """Wherever connections break, each message of a stream is taken once and in order, and prices end with the last."""
    script = {"cuts": cuts, "acks_after": acks_after, "credit": credit}
    async with ingest_server(**script) as ingest, _publisher(ingest.url) as publisher:
        await _both(publisher, 200)
        ingest.acks_after = 1
        await publisher.send("prices.A", 199)  # the ack of one ends the wait of all
    assert ingest.data("trades.A") == list(range(200))
    prices = ingest.data("prices.A")
    assert set(prices) == set(range(200))
    assert prices[-1] == 199


async def _both(publisher: Publisher, count: int) -> None:
    for number in range(count):
        await publisher.send("trades.A", number)
        await publisher.send("prices.A", number)
        if not number % 7:
            await asyncio.sleep(0)


async def test_a_repeated_message_is_called_a_duplicate() -> None:
    """What was taken before the link broke, but not acked, is not taken again, and its receipt says so."""
    async with ingest_server(is_mute=True) as ingest, _publisher(ingest.url) as publisher:
        publishing = asyncio.create_task(publisher.publish("trades.A", 1))
        await _until(lambda: ingest.taken)
        ingest.is_mute = False
        ingest.cut()
        receipt = await publishing
        named = await publisher.publish("trades.A", 2, idempotency_key="mine")
        again = await publisher.publish("trades.A", 2, idempotency_key="mine")
    assert (receipt.dropped, named.dropped, again.dropped) == ("duplicate", None, "duplicate")
    assert ingest.data("trades.A") == [1, 2]


async def test_a_stale_version_is_reported_as_dropped() -> None:
    """What the relay dropped because it has a newer one is no error."""
    async with ingest_server(stale=frozenset({"prices.A"})) as ingest, _publisher(ingest.url) as publisher:
        assert (await publisher.publish("prices.A", 1, version=1)).dropped == "stale"
        assert (await publisher.publish("prices.B", 1, version=1)).dropped is None


async def test_a_relay_that_died_gets_the_last_values_again() -> None:
    """With a new epoch each latest channel's last value is sent again by itself, a stream's never."""
    async with ingest_server() as ingest, _publisher(ingest.url) as publisher:
        for number in range(3):
            await publisher.publish("prices.A", number)
            await publisher.publish("prices.B", -number, version=number)
            await publisher.publish("trades.A", number)
        await publisher.alive("prices.B")
        ingest.die()
        await _until(lambda: len(ingest.taken) == 2)
        await publisher.publish("prices.C", 1)
    assert [(one["channel"], one["data"]) for one in ingest.taken] == [
        ("prices.A", 2),
        ("prices.B", -2),
        ("prices.C", 1),
    ]
    assert ingest.taken[1]["version"] == 2


async def test_a_newer_value_takes_the_place_of_the_last_one() -> None:
    """What was published while the relay was away is not preceded by what it replaces."""
    async with ingest_server() as ingest, _publisher(ingest.url) as publisher:
        await publisher.publish("prices.A", 1)
        ingest.die()
        await publisher.publish("prices.A", 2)
    assert ingest.data("prices.A") == [2]


async def test_a_link_that_only_broke_gets_nothing_again() -> None:
    """With the same epoch the relay has everything still."""
    async with ingest_server() as ingest, _publisher(ingest.url) as publisher:
        await publisher.publish("prices.A", 1)
        ingest.cut()
        await _until(lambda: len(ingest.connections) == 2)
        await publisher.publish("prices.A", 2)
    assert ingest.data("prices.A") == [1, 2]


async def test_an_ack_that_does_not_come_ends_the_link() -> None:
    """A relay that takes and never answers is left, and the message goes to the next connection."""
    async with ingest_server(is_mute=True) as ingest, _publisher(ingest.url, timeout_s=0.05) as publisher:
        publishing = asyncio.create_task(publisher.publish("trades.A", 1))
        await _until(lambda: len(ingest.connections) == 2)
        ingest.is_mute = False
        assert (await publishing).dropped == "duplicate"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 426])
async def test_a_refused_handshake_ends_all_that_waits(status: int) -> None:
    """A final refusal is raised at once; the next call connects again."""
    body = {"code": "invalid_key", "message": "The key is wrong.", "retryable": False}
    async with ingest_server(refusals=[refused(status, body)]) as ingest, _publisher(ingest.url) as publisher:
        with pytest.raises(PublishError, match="key is wrong") as caught:
            await publisher.publish("prices.A", 1)
        assert (caught.value.status, caught.value.code, caught.value.retryable) == (
            status,
            "invalid_key",
            False,
        )
        assert (await publisher.publish("prices.A", 2)).epoch == "e1"
    assert ingest.data("prices.A") == [2]


async def test_a_busy_relay_is_asked_again() -> None:
    """429 and 503 are waited out."""
    busy = {"code": "unavailable", "message": "Later.", "retryable": True}
    refusals = [refused(503, busy), refused(429, busy)]
    async with ingest_server(refusals=refusals) as ingest, _publisher(ingest.url) as publisher:
        await publisher.publish("prices.A", 1)
    assert len(ingest.handshakes) == 3


async def test_an_unreachable_relay_ends_in_an_error_with_its_address() -> None:
    """A relay that is not there ends in an error that names the address, for each that waited."""
    async with _publisher("http://127.0.0.1:9", attempts=3) as publisher:
        with pytest.raises(PublishError, match=r"127\.0\.0\.1:9.*can't be reached") as caught:
            await publisher.publish("prices.A", 1)
        assert (caught.value.code, caught.value.retryable) == ("unreachable", True)
        with pytest.raises(BatchError) as broke:
            await publisher.publish_many([("prices.A", 1)])
        assert broke.value.done == []


async def test_a_close_for_a_protocol_error_is_not_retried() -> None:
    """Close 1008 ends what waits with the relay's sentence."""
    async with ingest_server(close=(1008, "malformed")) as ingest, _publisher(ingest.url) as publisher:
        with pytest.raises(PublishError, match="malformed") as caught:
            await publisher.publish("prices.A", 1)
        assert not caught.value.retryable
    assert len(ingest.connections) == 1


async def test_flush_tells_what_became_of_what_was_sent() -> None:
    """The first refusal since the last flush is raised, with their number; leaving the block flushes too."""
    async with ingest_server(forbidden=frozenset({"orders.1"})) as ingest:

        async def send() -> None:
            async with _publisher(ingest.url) as publisher:
                await publisher.send("orders.1", 1)
                await publisher.send("prices.A", 1)
                await publisher.send("orders.1", 2)
                with pytest.raises(
                    PublishError, match=r"2 messages were not published. The first error: Not yours\."
                ):
                    await publisher.flush()
                await publisher.flush()
                await publisher.send("orders.1", 3)

        with pytest.raises(PublishError, match=r"^Not yours\.$"):
            await send()
    assert ingest.data("prices.A") == [1]


async def test_an_exception_in_the_block_ends_it_at_once() -> None:
    """Nobody waits for a relay that doesn't answer because of an error elsewhere."""
    async with ingest_server(is_mute=True) as ingest:
        waiting: list[asyncio.Task[Receipt]] = []

        async def fail() -> None:
            async with _publisher(ingest.url) as publisher:
                waiting.append(asyncio.create_task(publisher.publish("prices.A", 1)))
                await _until(lambda: ingest.taken)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        with pytest.raises(PublishError, match="closed"):
            await waiting[0]


async def test_another_server_is_recognised() -> None:
    """Nothing is published to a server that accepts the handshake and speaks another protocol."""
    async with ingest_server() as ingest:
        ingest.epoch = 5  # type: ignore[assignment]  # no welcome of the protocol
        async with _publisher(ingest.url) as publisher:
            with pytest.raises(PublishError) as caught:
                await publisher.publish("prices.A", 1)
    assert caught.value.code == "unexpected_answer"


async def test_a_message_may_be_given_whole() -> None:
    """`Message` has everything that a call has."""
    message = Message(
        channel="prices.A", data=b"1", version=1, version_epoch=2, idempotency_key="k", source_ts=3
    )
    async with ingest_server() as ingest, _publisher(ingest.url) as publisher:
        await publisher.publish_many([message])
    [[sent]] = ingest.frames
    assert sent == {
        "type": "publish",
        "id": 1,
        "channel": "prices.A",
        "version": 1,
        "version_epoch": 2,
        "idempotency_key": "k",
        "source_ts": 3,
        "data": 1,
    }


@pytest.mark.parametrize(
    "wrong", [{"version": -1}, {"version": 1.5}, {"version": True}, {"source_ts": 1 << 53}]
)
async def test_numbers_are_checked_here(wrong: dict[str, Any]) -> None:
    """What the relay would refuse is refused before it is sent."""
    async with _publisher("http://127.0.0.1:9") as publisher:
        with pytest.raises(PublishError, match="whole number"):
            await publisher.send("prices.A", 1, **wrong)
