"""`relay listen`, as a process against a real relay and into a pipe."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.listen_command import COMMAND, asking, environment
from tests.support.relay_process import Relay, running
from tests.support.symbols import SYMBOLS


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for this module."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


@contextlib.asynccontextmanager
async def listening(
    relay: Relay, *arguments: str, path: str = "/ws/prices", **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Listen at an endpoint for the time of a test."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        f"{relay.stream_url}{path}",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**env),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> dict[str, object]:
    """Return the next line of its output."""
    assert process.stdout is not None
    async with asyncio.timeout(60):  # a client that comes back waits for up to 20 s between two attempts
        line: dict[str, object] = json.loads(await process.stdout.readline())
    return line


async def end_of(process: asyncio.subprocess.Process) -> tuple[int | None, bytes, str]:
    """Wait for its end; returns exit code, what it still said, and its errors."""
    async with asyncio.timeout(20):
        output, errors = await process.communicate()
    return process.returncode, output, errors.decode()


async def test_values_are_json_lines(relay: Relay) -> None:
    """Snapshot and updates, one line each and nothing else, `data` byte for byte; --count ends with 0."""
    await relay.publish_raw(b'{"channel":"prices.JSON","data":{"p": 1.10000000000000000001}}')
    async with listening(relay, "prices.JSON", *asking(relay), "--count", "3") as process:
        assert process.stdout is not None
        first = await process.stdout.readline()
        await relay.publish("prices.JSON", 2)
        await relay.publish("prices.JSON", 3)
        second, third = await line_of(process), await line_of(process)
        ended = await end_of(process)
    assert b'"data":{"p": 1.10000000000000000001}' in first
    assert json.loads(first)["type"] == "snapshot"
    assert (second["type"], second["seq"], second["data"]) == ("update", 2, 2)
    assert third["seq"] == 3
    assert ended == (0, b"", "")


async def test_a_scoped_token_and_the_environment_work_too(relay: Relay) -> None:
    """A token that was taken elsewhere opens one connection; the session may come from the environment."""
    await relay.publish("prices.TOKEN", 1)
    async with listening(
        relay, "prices.TOKEN", "--count", "1", "--token", await relay.token(origin="")
    ) as process:
        assert (await end_of(process))[0] == 0
    arguments = ["prices.TOKEN", "--count", "1", "--issuer", relay.url]
    async with listening(relay, *arguments, RELAY_SESSION_TOKEN=relay.session()) as process:
        assert (await end_of(process))[0] == 0


async def test_a_closed_pipe_ends_quietly(relay: Relay) -> None:
    """`relay listen … | head -1`: a closed pipe ends the command without an error text."""
    await relay.publish("prices.HEAD", 0)
    read_end, write_end = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        f"{relay.stream_url}/ws/prices",
        "prices.HEAD",
        *asking(relay),
        stdout=write_end,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    os.close(write_end)
    with open(read_end, "rb", buffering=0) as reader:  # noqa: ASYNC230, PTH123  # a pipe of ours, by number
        assert await asyncio.to_thread(reader.readline)
    await relay.publish("prices.HEAD", 1)
    code, _, errors = await end_of(process)
    assert (code, errors) == (141, "")


async def test_ctrl_c_ends_quietly(relay: Relay) -> None:
    """SIGINT: exit code 130 and not a word."""
    await relay.publish("prices.STOP", 0)
    async with listening(relay, "prices.STOP", *asking(relay)) as process:
        await line_of(process)
        process.send_signal(signal.SIGINT)
        assert await end_of(process) == (130, b"", "")


async def test_refused_channels_are_named(relay: Relay) -> None:
    """A channel outside of the scope is one line; with no other channel left it ends the command."""
    await relay.publish("prices.MINE", 0)
    async with listening(relay, "orders.1", "prices.MINE", *asking(relay), "--count", "1") as process:
        code, output, errors = await end_of(process)
    assert code == 0
    assert json.loads(output)["channel"] == "prices.MINE"
    assert re.fullmatch(r"orders\.1 was refused: .+\n", errors)
    async with listening(relay, "orders.1", "--token", await relay.token(origin="")) as process:
        code, output, errors = await end_of(process)
    assert (code, output) == (1, b"")
    assert re.fullmatch(r"orders\.1 was refused: .+\n", errors)


async def test_refusals_are_one_line(relay: Relay) -> None:
    """A used token, an ended session, a wrong path or no relay: one sentence and exit code 1."""
    await relay.publish("prices.MINE", 1)
    used = await relay.token(origin="")
    async with listening(relay, "prices.MINE", "--token", used, "--count", "1") as process:
        assert (await end_of(process))[0] == 0
    for arguments in (["--token", used], ["--session-token", "dead", "--issuer", relay.url]):
        async with listening(relay, "prices.MINE", *arguments) as process:
            code, output, errors = await end_of(process)
        assert (code, output) == (1, b"")
        assert errors.count("\n") == 1
        assert used not in errors
    for url, sentence in [
        (f"{relay.stream_url}/nowhere", "refused"),
        ("ws://127.0.0.1:9/ws", "no connection"),
    ]:
        done = await asyncio.to_thread(run, url, "prices.MINE", *asking(relay))
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prices.A"], "Give either --token, which"),
        (["prices.A", "--token", "a.b.c", "--session-token", "x"], "Give either --token, which"),
        (["prices.A", "--token", "nonsense"], "not a scoped token"),
        (["no channel", "--token", "a.b.c"], "not a channel"),
        (["prices.A", "--token", "a.b.c", "--interval-ms", "7"], "interval_ms"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], sentence: str) -> None:
    """An error of the caller is one line and exit code 2."""
    done = run("ws://127.0.0.1:9/ws/prices", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


async def test_it_comes_back_after_a_restart(tmp_path: Path) -> None:
    """The relay is killed and started again: one line says so, the channel is stale until a new value is there."""
    with running(tmp_path) as relay:
        await relay.publish("prices.A", 1)
        async with listening(relay, "prices.A", *asking(relay), "--count", "2") as process:
            first = await line_of(process)
            await asyncio.to_thread(relay.kill)
            stale = await line_of(process)
            await asyncio.to_thread(relay.start)
            await relay.publish("prices.A", 2)
            second = await line_of(process)
            code, _, errors = await end_of(process)
    assert (stale["type"], stale["channel"], stale["state"]) == ("status", "prices.A", "stale")
    assert (first["data"], second["data"], code) == (1, 2, 0)
    assert errors.startswith("disconnected: 1006 ")
    assert "trying again in" in errors


async def test_what_of_a_stream_is_lost_is_a_line(tmp_path: Path) -> None:
    """A relay that was killed can't replay: a gap behind the last trade, in its place among the lines."""
    with running(tmp_path) as relay:
        await relay.publish("trades.A", 1)
        arguments = ["trades.A", *asking(relay), "--endpoint", "trades", "--count", "2"]
        async with listening(relay, *arguments, path="/ws/trades") as process:
            first = await line_of(process)
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)
            await relay.publish("trades.A", 2)
            lines = [first]
            while lines[-1].get("data") != 2:
                lines.append(await line_of(process))
    [gap] = [line for line in lines if line["type"] == "gap"]
    assert (gap["channel"], gap["seq"]) == ("trades.A", 1)


async def test_it_goes_on_over_a_refresh(tmp_path: Path) -> None:
    """A connection that lives for eight seconds is refreshed without a word, and values go on."""
    short = """
[endpoints.short]
path = "/ws/short"
channels = ["prices.>"]
max_age_s = 8

[grants.visitor]
short = ["prices.>"]
"""
    with running(tmp_path, extra=short) as relay:
        session = relay.session(roles=["visitor"])
        arguments = ["prices.A", "--session-token", session, "--issuer", relay.url, "--endpoint", "short"]
        async with listening(relay, *arguments, "--count", "2", path="/ws/short") as process:
            await relay.publish("prices.A", 1)
            await line_of(process)
            await relay.audited("connection.refreshed")
            await relay.publish("prices.A", 2)
            line = await line_of(process)
            while line["type"] == "status":  # on a slow machine the publisher is silent for long
                line = await line_of(process)
            assert (line["type"], line["data"]) == ("update", 2)
            assert (await end_of(process)) == (0, b"", "")
        connected = [record for record in relay.audit() if record["event"]["action"] == "connect.accepted"]
        assert len(connected) == 1


async def test_a_token_alone_says_when_it_ends(tmp_path: Path) -> None:
    """With --token there is nothing to refresh with: one line tells in time what would help."""
    short = """
[endpoints.short]
path = "/ws/short"
channels = ["prices.>"]
max_age_s = 2

[grants.visitor]
short = ["prices.>"]
"""
    with running(tmp_path, extra=short) as relay:
        token = await relay.token(relay.session(roles=["visitor"]), origin="", endpoint="short")
        async with listening(relay, "prices.A", "--token", token, path="/ws/short") as process:
            code, output, errors = await end_of(process)
    assert (code, output) == (1, b"")
    warning, end = errors.splitlines()
    assert re.fullmatch(r"the connection ends in \d s; with --session-token it would continue", warning)
    assert "4001 token_expired" in end


async def test_symbols_of_exchanges_are_names(relay: Relay) -> None:
    """Each symbol can be listened to."""
    channels = [f"prices.{symbol}" for symbol in SYMBOLS]
    for channel in channels:
        await relay.publish(channel, 1)
    async with listening(relay, *channels, *asking(relay), "--count", str(len(channels))) as process:
        seen = {(await line_of(process))["channel"] for _ in channels}
    assert seen == set(channels)
