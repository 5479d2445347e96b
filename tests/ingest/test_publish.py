"""POST /v1/publish: what a publisher gets, what subscribers get, and each refusal."""

import asyncio
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.raw_http import exchange, head
from tests.support.relay_process import PUBLISHER_KEY, PUBLISHER_SECRET, Relay, Socket, running
from tests.support.shared_relay import assert_quiet

KEY = ("Authorization", f"Bearer {PUBLISHER_KEY}")


def assert_error(answer: httpx.Response, status: int, code: str) -> None:
    """Check an error's status, code and form."""
    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert set(error) == {"code", "message", "retryable"}
    assert 10 < len(error["message"]) < 400
    assert answer.headers["cache-control"] == "private, no-store"


async def test_a_publication_is_numbered(relay: Relay) -> None:
    """200 with channel, epoch and seq, which counts from 1 on each channel."""
    first = (await relay.publish("prices.COUNTED", 1)).json()
    second = (await relay.publish("prices.COUNTED", 2)).json()
    other = (await relay.publish("prices.COUNTED2", 1)).json()
    assert first == {"channel": "prices.COUNTED", "epoch": first["epoch"], "seq": 1}
    assert (second["epoch"], second["seq"], other["seq"]) == (first["epoch"], 2, 1)


VERBATIM = [
    b'{"bid":0.1000,"ask":1e-7,"big":12345678901234567890}',
    b'{"escaped":"\\u00e4\\u2028\\ud83d\\ude00\\/","raw":"\xc3\xa4\xe2\x80\xa8\xf0\x9f\x98\x80"}',
    b'{ "spaces" : [ 1 , 2 ] }',
    b'{"a":1.0,"A":-0,"":null}',
    b'"a text"',
    b"null",
    b"-0.0",
    b"[]",
    b"12345678901234567890123456789.123456789",
    b"[" * 60 + b"]" * 60,
]


async def frame_of(socket: Socket, kind: str) -> bytes:
    """Return the data of the next data frame as it stands on the wire."""
    while not (frame := await socket.websocket.recv(decode=False)).startswith(
        b'{"type":"%b"' % kind.encode()
    ):
        assert frame.startswith(b'{"type":"heartbeat"'), frame
    start, separator, data = frame.partition(b',"data":')
    assert separator, start
    return data.removesuffix(b"}")


async def test_data_arrives_byte_for_byte(relay: Relay) -> None:
    """No number, escape or space of the data is touched, live and in the snapshot."""
    async with relay.connect(await relay.token(channels=["prices.VERBATIM"])) as socket:
        await socket.read("subscribed")
        for data in VERBATIM:  # the first is the snapshot that begins the channel, the others are updates
            body = b'{"channel":"prices.VERBATIM","data":' + data + b"}"
            assert (await relay.publish_raw(body)).status_code == 200, data
            assert await frame_of(socket, "snapshot" if data is VERBATIM[0] else "update") == data
        async with relay.connect(await relay.token(channels=["prices.VERBATIM"])) as late:
            await late.read("subscribed")
            assert await frame_of(late, "snapshot") == VERBATIM[-1]


async def test_line_breaks_between_tokens_become_spaces(relay: Relay) -> None:
    """A pretty-printed publication is one line on the wire, where formats of lines may follow."""
    async with relay.connect(await relay.token(channels=["prices.PRETTY"])) as socket:
        await socket.read("subscribed")
        body = json.dumps({"channel": "prices.PRETTY", "data": {"a": [1, 2]}}, indent=1).replace("\n", "\r\n")
        assert (await relay.publish_raw(body.encode())).status_code == 200
        frame = await socket.websocket.recv(decode=False)
        assert b"\n" not in frame
        assert b"\r" not in frame
        assert json.loads(frame)["data"] == {"a": [1, 2]}


async def test_the_source_time_goes_with_it(relay: Relay) -> None:
    """source_ts is the publisher's, ts the relay's own clock."""
    await relay.publish("prices.TIMED", 0)
    async with relay.connect(await relay.token(channels=["prices.TIMED"])) as socket:
        await socket.read("subscribed")
        await socket.read("snapshot")
        before = int(time.time() * 1000)
        await relay.publish("prices.TIMED", 1, source_ts=123)
        frame = await socket.next()
        assert frame["source_ts"] == 123
        assert before <= frame["ts"] <= int(time.time() * 1000)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "pricing",
        "pricing.",
        f".{PUBLISHER_SECRET}",
        PUBLISHER_SECRET,
        f"pricing.{PUBLISHER_SECRET}x",
        f"pricing.{PUBLISHER_SECRET[:-1]}",
        f"PRICING.{PUBLISHER_SECRET}",
        f"orders.{PUBLISHER_SECRET}",
        "pricing." + "a" * 1000,
    ],
)
async def test_a_wrong_key_is_401(relay: Relay, key: str) -> None:
    """A missing, cut or foreign key gets one answer, before the body is read."""
    body = head(
        "POST",
        "/v1/publish",
        [("Host", "127.0.0.1"), ("Authorization", f"Bearer {key}"), ("Content-Length", "10")],
    )
    answer = await exchange(relay.ports[2], body)  # the ten bytes never come
    assert (answer.status, answer.code) == (401, "invalid_key")
    await relay.audited("publish.denied", reason="publisher_unknown")


async def test_other_schemes_are_401(relay: Relay) -> None:
    """Basic, a bare key, and no header at all are no publisher's key; nor is a session or a scoped token."""
    for value in (
        f"Basic {PUBLISHER_KEY}",
        PUBLISHER_KEY,
        f"Bearer {relay.session()}",
        f"Bearer {await relay.token()}",
    ):
        fields = [("Host", "127.0.0.1"), ("Authorization", value), ("Content-Length", "0")]
        assert (await exchange(relay.ports[2], head("POST", "/v1/publish", fields))).status == 401
    fields = [("Host", "127.0.0.1"), ("Content-Length", "0")]
    assert (await exchange(relay.ports[2], head("POST", "/v1/publish", fields))).status == 401


async def test_a_channel_outside_the_key_is_403(relay: Relay) -> None:
    """The message names the key and the channel, the log the publisher; nothing is stored."""
    assert_error(await relay.publish("orders.42", 1), 403, "forbidden")
    assert_error(await relay.publish("prices", 1), 403, "forbidden")
    record = await relay.audited("publish.denied", reason="channel_forbidden")
    assert record["relay"]["publisher"] == {"id": "pricing"}
    assert record["http"]["response"]["status_code"] == 403


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"channel": "prices.X"},
        {"data": 1},
        {"channel": 1, "data": 1},
        {"channel": None, "data": 1},
        {"channel": "", "data": 1},
        {"channel": "prices..X", "data": 1},
        {"channel": "prices.*", "data": 1},
        {"channel": "prices.>", "data": 1},
        {"channel": "prices.\n", "data": 1},
        {"channel": 'prices."', "data": 1},
        {"channel": "prices." + "X" * 64, "data": 1},
        {"channel": "prices.X", "data": 1, "unknown": 1},
        {"channel": "prices.X", "data": 1, "source_ts": -1},
        {"channel": "prices.X", "data": 1, "source_ts": 1.5},
        {"channel": "prices.X", "data": 1, "source_ts": "now"},
        {"channel": "prices.X", "data": 1, "source_ts": 1 << 53},
        [],
        "prices.X",
        None,
    ],
)
async def test_a_malformed_publication_is_400(relay: Relay, body: object) -> None:
    """What is not of the documented form is refused with a sentence, and no such channel exists afterwards."""
    assert_error(await relay.publish_raw(json.dumps(body).encode()), 400, "invalid_request")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay for three channels."""
    with running(tmp_path_factory.mktemp("narrow"), limits="channels = 3") as relay:
        yield relay
    assert_quiet(relay)


async def test_a_channel_above_the_limit_is_refused(narrow: Relay) -> None:
    """The channel after limits.channels is refused; those that exist go on."""
    for name in ("A", "B", "C", "A"):
        assert (await narrow.publish(f"prices.{name}", 1)).status_code == 200
    assert_error(await narrow.publish("prices.D", 1), 400, "too_many_channels")
    assert (await narrow.publish("prices.B", 1)).json()["seq"] == 2
    assert (await narrow.publish_raw(b"", key="wrong.key")).status_code == 401


async def test_a_body_that_breaks_off_is_the_clients_fault(relay: Relay) -> None:
    """A publisher that dies in the middle leaves a record, and no error of the relay's."""
    fields = [("Host", "127.0.0.1"), KEY, ("Content-Length", "1000")]
    answer = await exchange(
        relay.ports[2], head("POST", "/v1/publish", fields) + b'{"channel":', half_close=True
    )
    assert answer.status == 0
    await relay.recorded(lambda record: "broke off" in str(record["relay"].get("detail")))


async def test_many_publishers_at_once_lose_nothing(relay: Relay) -> None:
    """100 publications in parallel: 100 numbers, each once."""
    body = b'{"channel":"prices.PARALLEL","data":1}'
    fields = [("Host", "127.0.0.1"), KEY, ("Content-Length", str(len(body)))]
    data = head("POST", "/v1/publish", fields) + body
    answers = await asyncio.gather(*(exchange(relay.ports[2], data) for _ in range(100)))
    assert sorted(answer.json["seq"] for answer in answers) == list(range(1, 101))
