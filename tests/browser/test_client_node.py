"""relay-client.js in node with the package `ws`: a server-side page, as dashboards and bots are.

Node has no `document`, no `online` event, and (before 22) no WebSocket. The class is handed in.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.npm_package import installed
from tests.support.relay_process import Relay
from tests.support.relay_process import running as running_relay
from tests.support.scripted_relay import CLIENT, PATIENCE_S
from tests.support.slow_readers import PRICE, WORK_MS, check_that_values_are_skipped
from tests.support.symbols import SYMBOLS
from tests.support.tcp_proxies import linked

CHANNEL = "trades.BTC-USD"

_SCRIPT = """
import { createInterface } from 'node:readline';
import { createStream } from './relay-client.mjs';
import WebSocket from 'ws';
const say = (kind) => (value) => console.log(JSON.stringify([kind, value]));
const [url, workMs, ...channels] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const stream = createStream({
  getToken: async () => {
    say('getToken')(null);
    return { wsToken: (await lines.next()).value, endpoint: url };
  },
  WebSocket,
});
for (const event of ['state', 'error', 'stale', 'live', 'gap']) stream.on(event, say(event));
const read = (value) => {
  say('value')(value);
  for (const end = performance.now() + Number(workMs); performance.now() < end; );
};
stream.subscribe(channels, { onSnapshot: read, onUpdate: read });
process.on('SIGTERM', () => { stream.close(); process.stdin.destroy(); });
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, with the package `ws`."""
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(CLIENT, folder / "relay-client.mjs")
    (folder / "node_modules").symlink_to(installed() / "node_modules")
    program = folder / "program.mjs"
    program.write_text(_SCRIPT)
    return program


class Program:
    """The running program: what it has said, and tokens when it asks."""

    def __init__(self, process: asyncio.subprocess.Process, relay: Relay, endpoint: str) -> None:
        self.process = process
        self.bad_tokens: list[str] = []  # handed out first
        self._relay = relay
        self._endpoint = endpoint

    async def next(self, *kinds: str) -> Any:
        """Return the value of the next event of one of `kinds`, handing out tokens meanwhile."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                line = await self.process.stdout.readline()
                assert line, await self._complaint()
                kind, value = json.loads(line)
                if kind == "getToken":
                    await self._answer()
                if kind in kinds:
                    return value

    async def _answer(self) -> None:
        assert self.process.stdin is not None
        bad = self.bad_tokens
        token = bad.pop() if bad else await self._relay.token(origin="", endpoint=self._endpoint)
        self.process.stdin.write(f"{token}\n".encode())

    async def _complaint(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


@asynccontextmanager
async def program(
    script: Path, relay: Relay, port: int, channels: Sequence[str] = (CHANNEL,), *, work_ms: int = 0
) -> AsyncIterator[Program]:
    """Run it against a port that leads to the relay; it must end by itself when its stream is closed."""
    endpoint = channels[0].partition(".")[0]
    process = await asyncio.create_subprocess_exec(
        *("node", str(script), f"ws://127.0.0.1:{port}/ws/{endpoint}", str(work_ms), *channels),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process, relay, endpoint)
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, process.returncode


async def values(program: Program, count: int) -> list[int]:
    """The next values, with no gap between them."""
    return [(await program.next("value", "gap"))["data"] for _ in range(count)]


async def opened(program: Program) -> None:
    """Wait until the stream is open."""
    while (await program.next("state"))["state"] != "open":
        pass


async def test_node_reads_a_stream_through_a_lost_link_and_a_killed_relay(
    script: Path, tmp_path: Path
) -> None:
    """Live, then resumed without a loss, then an honest gap; a refused connection doesn't end the program."""
    with running_relay(tmp_path) as relay:
        async with linked(relay.ports[1]) as link, program(script, relay, link.port) as node:
            await opened(node)
            await relay.publish(CHANNEL, 1)
            assert await values(node, 1) == [1]
            link.reset()
            assert (await node.next("stale"))["channel"] == CHANNEL
            await relay.publish(CHANNEL, 2)
            await relay.publish(CHANNEL, 3)
            assert await values(node, 2) == [2, 3]

            await asyncio.to_thread(relay.kill)
            assert (await node.next("state"))["state"] == "waiting"
            await asyncio.to_thread(relay.start)
            await opened(node)
            await relay.publish(CHANNEL, 4)
            gap = await node.next("gap", "value")
            assert gap["since"]["seq"] == 3
            assert await values(node, 1) == [4]


async def test_refused_upgrades_do_not_end_the_program(script: Path, tmp_path: Path) -> None:
    """`ws` raises each as an error event, which node turns into a crash where nobody listens."""
    with running_relay(tmp_path) as relay:
        async with program(script, relay, relay.ports[1]) as node:
            node.bad_tokens = ["a.b.c"] * 3
            seen = []
            while (change := await node.next("state"))["state"] != "open":
                seen.append(change.get("code"))
            assert [code for code in seen if code] == [1006, 1006, 3000]
            await relay.publish(CHANNEL, 1)
            assert await values(node, 1) == [1]


async def test_symbols_of_exchanges_can_be_named_in_a_url(script: Path, tmp_path: Path) -> None:
    """The first channels are in the URL, and each symbol there is itself."""
    channels = [f"trades.{symbol}" for symbol in SYMBOLS]
    with running_relay(tmp_path) as relay:
        for channel in channels:
            await relay.publish(channel, channel)
        async with program(script, relay, relay.ports[1], channels) as node:
            values = [await node.next("value", "error") for _ in channels]
    assert sorted((value["channel"], value["data"]) for value in values) == sorted(
        zip(channels, channels, strict=True)
    )


async def test_a_slow_reader_in_node_gets_new_prices(script: Path, tmp_path: Path) -> None:
    """It gets fewer values instead of old ones, and the newest one at the end."""
    with running_relay(tmp_path) as relay:
        async with program(script, relay, relay.ports[1], [PRICE], work_ms=WORK_MS) as node:
            await opened(node)
            await check_that_values_are_skipped(relay, lambda: node.next("value"))
