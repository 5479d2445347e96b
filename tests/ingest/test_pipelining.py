"""Many messages of one socket on their way to the broker at once: order, bounds, faults and ends.

Real sockets, and a broker that answers when the test says so.
"""

import asyncio
from random import Random
from typing import Any

import pytest

from relay.core.errors import Reason, UnavailableError
from relay.ingest.frames import WINDOW
from relay.ingest.socket import MAX_UNSETTLED, MAX_UNSETTLED_BYTES
from tests.support.ingest_node import HeldBroker, ingest_node
from tests.support.publisher_socket import Publishing, publishing

UNKNOWN = UnavailableError(Reason.BROKER_UNAVAILABLE, "It is unknown whether this was published.")


async def settled(publisher: Publishing, last: int) -> list[tuple[int, str]]:
    """Read up to the ack of an id, and check the order of the answers. Returns what became of each message."""
    fates: dict[int, str] = {}
    errors: list[int] = []
    upto = 0
    while upto < last:
        answer = await publisher.next()
        if answer["type"] == "error":
            assert answer["id"] > upto
            errors.append(answer["id"])
            fates[answer["id"]] = answer["code"]
        else:
            assert answer["type"] == "ack"
            assert answer["upto"] > upto
            upto = answer["upto"]
            assert not errors or errors[-1] <= upto
    assert errors == sorted(set(errors))
    return [(id_, fates.get(id_, "ok")) for id_ in range(1, upto + 1)]


async def test_no_message_waits_for_the_answer_to_another() -> None:
    """Three are with the broker before the first has its answer; the ack comes with the last answer, in order."""
    broker = HeldBroker()
    async with ingest_node(broker) as node, publishing(node) as publisher:
        await publisher.send(*(publisher.line("prices.A", value) for value in range(3)))
        await publisher.send(publisher.line("prices.A", 3))
        await broker.until_handed(4)
        for place in (3, 1, 1):
            broker.answer(place)
        broker.answer()
        assert (await publisher.next())["upto"] == 3
        assert (await publisher.next())["upto"] == 4
    assert node.ingest.counts["pricing"].published == 4


async def test_an_error_keeps_its_place() -> None:
    """Whether it is known at once or later: errors come in the order of the ids, before the ack of their frame."""
    broker = HeldBroker()
    async with ingest_node(broker) as node, publishing(node) as publisher:
        await publisher.send(
            publisher.line("prices.A", 1),
            publisher.line("prices.A", 2),
            publisher.line("orders.A", 3),
            publisher.line("prices.A", 4),
            publisher.line("prices.A", 5, version=-1),
        )
        await broker.until_handed(3)
        broker.answer(2, UNKNOWN)
        broker.answer(1, UNKNOWN)
        broker.answer()
        answers = [await publisher.next() for _ in range(5)]
        assert [(one.get("id"), one.get("code")) for one in answers] == [
            (2, "unavailable"),
            (3, "forbidden"),
            (4, "unavailable"),
            (5, "invalid_request"),
            (None, None),
        ]
        assert answers[-1]["upto"] == 5
    assert sorted((one["reason"], one["count"]) for one in node.denied) == [
        (Reason.BROKER_UNAVAILABLE, 2),
        (Reason.CHANNEL_FORBIDDEN, 1),
        (Reason.PUBLICATION_MALFORMED, 1),
    ]


@pytest.mark.parametrize(
    ("size", "frame", "frames"), [(1, 256, 8), (60_000, 16, 8)], ids=["by number", "by bytes"]
)
async def test_what_waits_for_the_broker_is_bounded(size: int, frame: int, frames: int) -> None:
    """The socket is not read on; when answers come, everything is published in its order."""
    broker = HeldBroker()
    async with ingest_node(broker) as node, publishing(node) as publisher:
        sending = asyncio.create_task(_send_frames(publisher, size, frame, frames))
        answering = asyncio.create_task(settled(publisher, frame * frames))
        answered = 0
        full = min(MAX_UNSETTLED - frames, MAX_UNSETTLED_BYTES // size)  # the ends of frames count, too
        while answered < frame * frames:
            await broker.until(lambda: len(broker.held) >= full or broker.handed == frame * frames)
            for _ in range(min(7, len(broker.held))):
                broker.answer()
                answered += 1
        assert await answering == [(id_, "ok") for id_ in range(1, frame * frames + 1)]
        await sending
    assert broker.most <= MAX_UNSETTLED
    assert broker.most_bytes < MAX_UNSETTLED_BYTES + 65_536
    assert (await broker.load()).values[0].seq == frame * frames


async def _send_frames(publisher: Publishing, size: int, frame: int, frames: int) -> None:
    assert frame * frames <= WINDOW
    for _ in range(frames):
        await publisher.send(*(publisher.line("prices.A", "x" * size) for _ in range(frame)))


async def test_a_publisher_that_goes_leaves_nothing() -> None:
    """What the broker has is counted when its answer comes; no task and no connection is left."""
    broker = HeldBroker()
    async with ingest_node(broker) as node:
        async with publishing(node) as publisher:
            await publisher.send(*(publisher.line("prices.A", value) for value in range(100)))
            await broker.until_handed(100)
            publisher.socket.transport.abort()
        for place in range(100):
            broker.answer(0, UNKNOWN if place % 2 else None)
        await node.empty()
        counts = node.ingest.counts["pricing"]
        assert (counts.published, counts.refused, counts.connections) == (50, 50, 0)


async def test_a_drain_waits_for_what_the_broker_has() -> None:
    """Then the last ack, `reconnect`, and 1012."""
    broker = HeldBroker()
    async with ingest_node(broker) as node, publishing(node) as publisher:
        await publisher.send(*(publisher.line("prices.A", value) for value in range(3)))
        await broker.until_handed(3)
        draining = asyncio.create_task(node.sockets.drain())
        for _ in range(3):
            broker.answer()
        assert (await publisher.next())["upto"] == 3
        assert (await publisher.next())["type"] == "reconnect"
        assert (await publisher.closed())[0] == 1012
        await draining


async def test_a_message_that_ends_the_connection_waits_for_those_before() -> None:
    """They are acknowledged, then the error says what was wrong."""
    broker = HeldBroker()
    async with ingest_node(broker) as node, publishing(node) as publisher:
        await publisher.send(publisher.line("prices.A", 1), publisher.line("prices.A", 2), "[]")
        await broker.until_handed(2)
        broker.answer(1)
        broker.answer()
        assert (await publisher.next())["upto"] == 2
        assert (await publisher.next())["type"] == "error"
        assert (await publisher.closed())[0] == 1008


async def test_credit_and_quota_hold_while_answers_are_awaited() -> None:
    """A quota of ten a second: ten are allowed, and no credit is given for messages without an answer."""
    broker = HeldBroker()
    async with ingest_node(broker, rate="10/second") as node, publishing(node) as publisher:
        assert publisher.welcome["credit"] == 10
        await publisher.send(*(publisher.line("prices.A", value) for value in range(10)))
        await broker.until_handed(10)
        for _ in range(10):
            broker.answer()
        credit = 0
        while credit < 11:  # the quota fills up with time
            ack = await publisher.next()
            assert ack["upto"] == 10
            credit = ack["credit"]


async def test_each_message_has_its_answer_in_order() -> None:
    """Whatever becomes of each, in whatever order the broker answers, in whatever frames."""
    broker = HeldBroker()
    async with ingest_node(broker) as node:
        for seed in range(50):
            random = Random(seed)
            broker.held.clear()
            broker.handed = 0
            kinds = random.choices(
                ["ok", "forbidden", "invalid_request", "unavailable"], k=random.randrange(1, 41)
            )
            fates = [kind for kind in kinds if kind in ("ok", "unavailable")]
            async with publishing(node) as publisher:
                lines = [_line(publisher, kind) for kind in kinds]
                while lines:
                    size = random.randrange(1, 11)
                    await publisher.send(*lines[:size])
                    del lines[:size]
                await broker.until_handed(len(fates))
                for fate, (future, outcome) in random.sample(
                    list(zip(fates, broker.held, strict=True)), len(fates)
                ):
                    if fate == "ok":
                        future.set_result(outcome)
                    else:
                        future.set_exception(UNKNOWN)
                assert await settled(publisher, len(kinds)) == list(enumerate(kinds, 1)), seed


def _line(publisher: Publishing, kind: str) -> str:
    more: dict[str, Any] = {"version": -1} if kind == "invalid_request" else {}
    return publisher.line("orders.A" if kind == "forbidden" else "prices.A", 1, **more)
