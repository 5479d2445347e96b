"""GET /v1/ingest: acks, errors, credit, and every way in which it ends."""

import json
import signal
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from relay.ingest.frames import WINDOW
from tests.support.http_client import http_client
from tests.support.publisher_socket import publishing
from tests.support.relay_process import PUBLISHER_KEY, Relay, running


async def test_the_welcome_says_what_may_be_sent(relay: Relay) -> None:
    """Who it is, the credit, the limits, the epoch, and which channels are streams."""
    async with connect(
        relay.internal_url.replace("http", "ws") + "/v1/ingest",
        additional_headers={"Authorization": f"Bearer {PUBLISHER_KEY}"},
        proxy=None,
    ) as socket:
        welcome = json.loads(await socket.recv())
    assert welcome["publisher"] == "pricing"
    assert welcome["credit"] == WINDOW
    assert welcome["epoch"] == (await relay.publish("prices.S0", 1)).json()["epoch"]
    assert "trades.>" in welcome["streams"]
    assert welcome["limits"] == {"message_bytes": 65536, "frame_bytes": 1 << 20, "frame_messages": 256}


async def test_each_message_arrives_once_and_in_order(relay: Relay) -> None:
    """Byte for byte, whether alone in a frame or among others; one ack a frame."""
    async with (
        relay.connect(await relay.token(channels=["prices.S1"])) as reader,
        publishing(relay) as publisher,
    ):
        await reader.read("subscribed")
        await publisher.send('{"type":"publish","id":1,"channel":"prices.S1","data":1.50}')
        ack = await publisher.next()
        epoch = ack["epoch"]["prices.S1"]
        assert ack == {"type": "ack", "upto": 1, "credit": 1 + WINDOW, "epoch": {"prices.S1": epoch}}
        publisher.id = 1
        await publisher.send(*(publisher.line("prices.S1", value) for value in range(200)))
        assert await publisher.next() == {"type": "ack", "upto": 201, "credit": 201 + WINDOW}
        frames = [await reader.next() for _ in range(201)]
        assert [frame["data"] for frame in frames] == [1.5, *range(200)]
        assert [frame["seq"] for frame in frames] == list(range(1, 202))


async def test_what_fits_over_http_fits_here(relay: Relay) -> None:
    """64 KiB are a publication's; what numbers it comes on top."""
    empty = json.dumps({"channel": "prices.LONG", "data": ""}, separators=(",", ":"))
    text = "x" * (65_536 - len(empty))
    assert (await relay.publish_raw(empty.replace('""', f'"{text}"').encode())).status_code == 200
    assert (await relay.publish_raw(empty.replace('""', f'"{text}x"').encode())).status_code == 413
    async with publishing(relay) as publisher:
        for number, (more, answer) in enumerate([("", "ack"), ("x", "error")], start=1):
            numbered = empty.replace("{", f'{{"type":"publish","id":{number},')
            await publisher.send(numbered.replace('""', f'"{text}{more}"'))
            assert (await publisher.next())["type"] == answer


async def test_one_bad_message_spoils_no_other(relay: Relay) -> None:
    """Its error has its id and comes before the ack that settles it; the audit log has one record a reason."""
    async with publishing(relay) as publisher:
        await publisher.send(
            publisher.line("prices.S2", 1),
            publisher.line("orders.1", 1),
            publisher.line("orders.2", 1),
            publisher.line("prices.S2", 1, version=-1),
            publisher.line("prices.S2", "x" * 65_536),
            publisher.line("prices.S2", 2),
        )
        errors = [await publisher.next() for _ in range(4)]
        assert [(error["type"], error["id"], error["code"]) for error in errors] == [
            ("error", 2, "forbidden"),
            ("error", 3, "forbidden"),
            ("error", 4, "invalid_request"),
            ("error", 5, "too_large"),
        ]
        assert (await publisher.next())["upto"] == 6
        assert (await relay.publish("prices.S2", 3)).json()["seq"] == 3
    await relay.recorded(
        lambda record: (
            record["event"]["action"] == "publish.denied"
            and record["relay"]["publisher"]["id"] == "pricing"
            and record["relay"]["count"] == 2
        ),
    )


async def test_what_is_dropped_is_told_in_the_ack(relay: Relay) -> None:
    """By id; a sign of life is settled like a message."""
    async with publishing(relay) as publisher:
        await publisher.send(
            publisher.line("prices.S3", 1, version=2),
            publisher.line("prices.S3", 1, version=1),
            publisher.line("trades.S3", 1, idempotency_key="k"),
            publisher.line("trades.S3", 1, idempotency_key="k"),
            '{"type":"publish","id":5,"channel":"prices.S3","alive":true}',
        )
        ack = await publisher.next()
        assert (ack["upto"], ack["stale"], ack["duplicate"]) == (5, [2], [4])
        assert ack["epoch"].keys() == {"prices.S3", "trades.S3"}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("[]", 1008),
        ("no JSON", 1008),
        ('{"type":"publish","channel":"prices.A","data":1}', 1008),
        ('{"type":"publish","id":2,"channel":"prices.A","data":1}', 1008),
        ('{"type":"publish","id":0,"channel":"prices.A","data":1}', 1008),
        ('{"type":"publish","id":true,"channel":"prices.A","data":1}', 1008),
        (b"binary", 1003),
        ("\n".join('{"type":"publish","id":1,"channel":"a","data":1}' for _ in range(257)), 1009),
    ],
)
async def test_what_can_not_be_answered_by_id_ends_the_connection(
    relay: Relay, frame: str | bytes, code: int
) -> None:
    """With an error that says why, and the next connection works."""
    async with publishing(relay) as publisher:
        await publisher.socket.send(frame)
        error = await publisher.next()
        while error["type"] == "ack":
            error = await publisher.next()
        assert error["type"] == "error"
        assert "id" not in error
        assert (await publisher.closed())[0] == code
    async with publishing(relay) as publisher:
        await publisher.send(publisher.line("prices.S4", 1))
        assert (await publisher.next())["type"] == "ack"


async def test_a_frame_that_is_too_large_ends_the_connection(relay: Relay) -> None:
    """Nobody reads it to its end: more than 1 MiB is 1009."""
    async with publishing(relay) as publisher:
        await publisher.socket.send(" " * ((1 << 20) + 1))
        assert (await publisher.closed())[0] == 1009


@pytest.mark.parametrize("key", ["", "pricing.wrong", "nobody.x"])
async def test_a_wrong_key_is_refused_before_the_upgrade(relay: Relay, key: str) -> None:
    """As over HTTP: 401, the same body, and a record."""
    with pytest.raises(InvalidStatus) as caught:
        async with publishing(relay, key):
            pass
    response = caught.value.response
    assert response.status_code == 401
    assert json.loads(response.body or b"")["code"] == "invalid_key"
    assert response.headers["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_browsers_do_not_get_in(relay: Relay, headers: dict[str, str]) -> None:
    """A page could open a WebSocket to 127.0.0.1 without asking anybody, if it had the key."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            relay.internal_url.replace("http", "ws") + "/v1/ingest",
            additional_headers={"Authorization": f"Bearer {PUBLISHER_KEY}"} | headers,
            proxy=None,
        ):
            pass
    assert caught.value.response.status_code in (400, 403, 421)


async def test_other_addresses_take_no_websocket(relay: Relay) -> None:
    """And this one nothing else."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(relay.internal_url.replace("http", "ws") + "/v1/publish", proxy=None):
            pass
    assert caught.value.response.status_code in (403, 404)
    async with http_client() as client:
        key = {"Authorization": f"Bearer {PUBLISHER_KEY}"}
        answer = await client.get(relay.internal_url + "/v1/ingest", headers=key)
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")


async def test_a_drain_settles_what_came_and_says_when_to_come_back(tmp_path: Path) -> None:
    """SIGTERM: the last ack, `reconnect`, 1012; the relay does not wait for the publisher to leave."""
    with running(tmp_path, limits="drain_s = 0.0") as relay:
        async with publishing(relay) as publisher:
            await publisher.send(publisher.line("prices.D", 1))
            assert (await publisher.next())["upto"] == 1
            assert relay.process is not None
            relay.process.send_signal(signal.SIGTERM)
            last = await publisher.next()
            assert last["type"] == "reconnect"
            assert 500 <= last["delay_ms"] <= 2500
            assert (await publisher.closed())[0] == 1012
        assert relay.process.wait(15) == 0


async def test_a_killed_publisher_leaves_what_was_acked(relay: Relay) -> None:
    """A connection that is cut in mid-frame: what came whole is published, the rest is as if never sent."""
    async with publishing(relay) as publisher:
        await publisher.send(publisher.line("prices.S6", 1))
        assert (await publisher.next())["upto"] == 1
        publisher.socket.transport.write(b"\x81\xfe\xff\xff")  # the head of a frame that never comes
        publisher.socket.transport.abort()
    assert (await relay.publish("prices.S6", 2)).json()["seq"] == 2
