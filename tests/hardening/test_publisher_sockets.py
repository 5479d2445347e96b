"""The publisher's socket abused: poisoned frames, and a publisher that dies by kill -9 in the middle of a batch."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from tests.support.poisoned_publications import DATA, watch
from tests.support.publisher_socket import publishing
from tests.support.relay_process import PUBLISHER_KEY, Relay

POISONED = DATA | {
    "a member of the envelope twice": b'1,"data":2',
    "an escaped duplicate": b'1,"d\\u0061ta":2',
    "the id twice": b'1,"id":1',
    "an unknown member": b'1,"more":2',
    "too large": b'"' + b"a" * 65_536 + b'"',
}


async def test_poisoned_messages_reach_nobody(relay: Relay) -> None:
    """Each has its error, by its id where one can be told and else with the end; then the next good one is taken."""

    async def publish_all() -> None:
        for kind, data in POISONED.items():
            async with publishing(relay) as publisher:
                line = b'{"type":"publish","id":1,"channel":"prices.POISON","data":' + data + b"}"
                await publisher.socket.send(line, text=True)
                if not _is_utf8(data):
                    assert (await publisher.closed())[0] == 1007, kind
                    continue
                while (error := await publisher.next())["type"] == "ack":
                    pass
                expected = "malformed" if "id" not in error else "invalid_request"
                if kind == "too large":
                    expected = "too_large"
                assert (error["type"], error["code"], error["retryable"]) == ("error", expected, False), kind
                if "id" in error:
                    assert error["id"] == 1, kind
                    assert (await publisher.next())["upto"] == 1, kind
                else:
                    assert (await publisher.closed())[0] == 1008, kind

    await watch(relay, publish_all)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


PUBLISHER = """
import json, sys
from websockets.sync.client import connect

channel = "trades.KILLED"

def frame(first):
    return "\\n".join(
        json.dumps({"type": "publish", "id": id_, "channel": channel, "data": id_, "idempotency_key": f"k-{id_}"})
        for id_ in range(first, first + 20)
    )

with connect(sys.argv[1], additional_headers={"Authorization": f"Bearer {sys.argv[2]}"}, proxy=None) as socket:
    socket.recv()
    for first in range(1, 101, 20):
        socket.send(frame(first))
        print(json.loads(socket.recv())["upto"], flush=True)
    for first in range(101, 401, 20):
        socket.send(frame(first))  # nobody reads these acks
    socket.socket.sendall(b"\\x81\\xfe\\xff\\xff")  # the head of a frame that never comes
    print("sent", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def publisher_process(relay: Relay) -> Iterator[subprocess.Popen[str]]:
    """Run the publisher above, and end it whatever happens."""
    url = relay.internal_url.replace("http", "ws") + "/v1/ingest"
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, url, PUBLISHER_KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_kill_9_of_a_publisher_in_mid_batch(relay: Relay) -> None:
    """What was acked is there; all of it can be sent again, and subscribers get each message once and in order."""
    token = await relay.token(endpoint="trades", channels=["trades.KILLED"])
    async with relay.connect(token, path="/ws/trades") as reader:
        await reader.read("subscribed")
        with publisher_process(relay) as process:
            assert process.stdout is not None
            acked = [await asyncio.to_thread(process.stdout.readline) for _ in range(5)]
            assert [int(line) for line in acked] == [20, 40, 60, 80, 100]
            await asyncio.to_thread(process.stdout.readline)
            process.kill()
        async with publishing(relay) as publisher:
            lines = [
                json.dumps(
                    {
                        "type": "publish",
                        "id": id_,
                        "channel": "trades.KILLED",
                        "data": id_,
                        "idempotency_key": f"k-{id_}",
                    }
                )
                for id_ in range(1, 501)
            ]
            await publisher.send(*lines[:250])
            first = await publisher.next()
            assert first["upto"] == 250
            assert set(range(1, 101)) <= set(first["duplicate"]), "what was acked was there"
            await publisher.send(*lines[250:])
            assert (await publisher.next())["upto"] == 500
        values: list[tuple[int, int]] = []
        while len(values) < 500:
            frame = await reader.next()
            if frame["type"] in ("snapshot", "update"):
                values.append((frame["seq"], frame["data"]))
        assert values == [(id_, id_) for id_ in range(1, 501)]
