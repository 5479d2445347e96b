"""`relay listen` with a publisher's key, against a real relay."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.listen_command import COMMAND, environment
from tests.support.relay_process import PUBLISHER_KEY, Relay, running


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay. The test that ends it starts it again."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


@contextlib.asynccontextmanager
async def listening(
    url: str, *arguments: str, key: str = PUBLISHER_KEY
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Listen with a key from the environment."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        url,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(RELAY_PUBLISH_KEY=key),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return the next line of its output."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line: dict[str, Any] = json.loads(await process.stdout.readline())
    return line


async def test_it_follows_its_channels_through_a_restart(relay: Relay) -> None:
    """Values, a stale channel, the relay gone and back: one process sees all, without a token."""
    await relay.publish_raw(b'{"channel":"trades.A","data":{"p": 1.10}}')
    async with listening(relay.internal_url, "trades.*") as process:
        first = await line_of(process)
        assert (first["type"], first["channel"], first["data"]) == ("snapshot", "trades.A", {"p": 1.1})
        status = await line_of(process)  # silent for 300 ms
        assert (status["type"], status["state"]) == ("status", "stale")
        publishing = asyncio.create_task(publish_again_and_again(relay, "trades.A"))
        assert (await line_of(process))["type"] == "update"
        line = await line_of(process)
        while line["type"] == "update":  # a value that it asks for late is stale already
            line = await line_of(process)
        assert (line["type"], line["state"]) == ("status", "live")
        publishing.cancel()
        while (line := await line_of(process)).get("state") != "stale":
            pass
        await asyncio.to_thread(relay.kill)
        assert process.stderr is not None
        async with asyncio.timeout(60):
            assert b"trying again" in await process.stderr.readline()
        await asyncio.to_thread(relay.start)
        await relay.publish("trades.A", 3)
        again = await line_of(process)
        assert (again["type"], again["data"], again["seq"]) == ("snapshot", 3, 1)


async def publish_again_and_again(relay: Relay, channel: str) -> None:
    """Publish, until it is cancelled."""
    for number in itertools.count():
        await relay.publish(channel, number)


async def test_the_public_listener_is_another_address(relay: Relay) -> None:
    """The command says that the port is wrong, and ends."""
    async with listening(relay.url, "prices.A") as process:
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"nothing at this address" in errors


async def test_count_ends_it(relay: Relay) -> None:
    """With exit code 0."""
    await relay.publish("prices.A", 1)
    async with listening(relay.internal_url, "prices.A", "--count", "1") as process:
        assert (await line_of(process))["data"] == 1
        async with asyncio.timeout(20):
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("channel", "key", "code", "sentence"),
    [
        ("orders.1", PUBLISHER_KEY, 1, "may not read orders.1"),
        ("prices.A", "pricing.wrong", 1, "The publisher key is wrong."),
        ("a..b", PUBLISHER_KEY, 2, "not a channel"),
        ("prices.A", "", 2, "--publisher-key"),
    ],
)
async def test_a_refusal_is_one_line(relay: Relay, channel: str, key: str, code: int, sentence: str) -> None:
    """It says what is wrong, and the command ends."""
    async with listening(relay.internal_url, channel, key=key) as process:
        async with asyncio.timeout(20):
            output, errors = await process.communicate()
    assert (process.returncode, output) == (code, b"")
    assert sentence in errors.decode()
    assert errors.count(b"\n") == 1


async def test_a_wrong_address_ends_it() -> None:
    """Nobody is there: that must not look like a market without trades."""
    async with listening("http://127.0.0.1:9", "prices.A") as process:
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"can't be reached" in errors


async def test_the_key_is_for_the_internal_listener() -> None:
    """With the URL of an endpoint, the error names both."""
    async with listening("ws://127.0.0.1:9/ws/prices", "prices.A") as process:
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"http://127.0.0.1:8002" in errors
