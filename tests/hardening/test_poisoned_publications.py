"""Poisoned publications: one bad byte in a text frame would drop every dashboard, again at each reconnect."""

import asyncio

import pytest

from tests.support.poisoned_publications import BODIES, DATA, watch
from tests.support.raw_http import exchange, head, publish
from tests.support.relay_process import PUBLISHER_KEY, Relay


async def test_poisoned_data_reaches_nobody(relay: Relay) -> None:
    """Each kind is 400 with a sentence; subscribers stay, and get the next good tick."""

    async def publish_all() -> None:
        for kind, data in DATA.items():
            answer = await publish(relay, b'{"channel":"prices.POISON","data":' + data + b"}")
            assert (answer.status, answer.code) == (400, "invalid_request"), kind
            assert len(answer.json["message"]) < 300, kind

    await watch(relay, publish_all)


async def test_poisoned_bodies_reach_nobody(relay: Relay) -> None:
    """The same for what is wrong outside of the data, and in a batch of lines."""

    async def publish_all() -> None:
        for kind, body in BODIES.items():
            single = await publish(relay, body)
            assert (single.status, single.code) == (400, "invalid_request"), kind
        lines = b"\n".join(
            b'{"channel":"prices.POISON","data":' + data + b"}"
            for data in DATA.values()
            if b"\n" not in data and len(data) < 60_000
        )
        batch = await relay.publish_raw(
            lines, path="/v1/publish/batch", **{"Content-Type": "application/x-ndjson"}
        )
        assert {result.get("code") for result in batch.json()["results"]} == {"invalid_request"}

    await watch(relay, publish_all)


@pytest.mark.parametrize("path", ["/v1/publish", "/v1/publish/batch"])
async def test_an_oversized_body_is_413(relay: Relay, path: str) -> None:
    """5 MB announced, 5 MB in chunks without a length, and a length that lies: refused without being kept."""
    fields = [
        ("Host", "127.0.0.1"),
        ("Authorization", f"Bearer {PUBLISHER_KEY}"),
        ("Content-Type", "application/json"),
    ]
    start = b'{"channel":"prices.POISON","data":"'
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    announced = head("POST", path, [*fields, ("Content-Length", "5000000")]) + start + b"a" * 5_000_000
    chunked = head("POST", path, [*fields, ("Transfer-Encoding", "chunked")]) + chunk * 80

    async def publish_all() -> None:
        answers = await asyncio.gather(*(exchange(relay.ports[2], data) for data in (announced, chunked)))
        assert [(answer.status, answer.code) for answer in answers] == [(413, "too_large")] * 2

    await watch(relay, publish_all)


async def test_one_byte_above_64_kib_is_413(relay: Relay) -> None:
    """The longest publication passes and reaches its subscriber; one more byte does not."""
    frame = b'{"channel":"prices.LONGEST","data":"%b"}'
    room = 65_536 - len(frame % b"")
    async with relay.connect(await relay.token(channels=["prices.LONGEST"])) as socket:
        await socket.read("subscribed")
        assert (await relay.publish_raw(frame % (b"a" * (room + 1)))).status_code == 413
        assert (await relay.publish_raw(frame % (b"a" * room))).status_code == 200
        assert len((await socket.next())["data"]) == room
