"""`relay listen`, as a process against a real relay: into a pipe, and on a terminal."""

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.cli.listen import printable
from tests.support.service import Relay, running

COMMAND = [sys.executable, "-m", "relay", "listen"]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for this module."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def environment(**more: str) -> dict[str, str]:
    """Return the environment without settings of the caller's own relay, for a terminal without colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return kept | {"TERM": "xterm", "NO_COLOR": "1"} | more


def asking(relay: Relay) -> list[str]:
    """Return the arguments of somebody who is logged in."""
    return ["--session-token", relay.session(), "--issuer", relay.url]


@contextlib.asynccontextmanager
async def listening(relay: Relay, *arguments: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Listen at the prices endpoint for the time of a test."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        f"{relay.stream_url}/ws/prices",
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
    async with asyncio.timeout(20):
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
    """`relay listen … | head -1`: the next value finds nobody, and that is no error to talk about."""
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
    """A used token, a dead session, a wrong path, nobody there: one sentence each and exit code 1."""
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
        (["prices.A"], "either --token or --session-token"),
        (["prices.A", "--token", "a.b.c", "--session-token", "x"], "either --token or --session-token"),
        (["prices.A", "--token", "nonsense"], "not a scoped token"),
        (["no channel", "--token", "a.b.c"], "not a channel"),
        (["prices.A", "--token", "a.b.c", "--interval-ms", "7"], "interval_ms"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], sentence: str) -> None:
    """What the caller must mend is one line and exit code 2."""
    done = run("ws://127.0.0.1:9/ws/prices", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


async def test_it_comes_back_after_a_restart(tmp_path: Path) -> None:
    """The relay is killed and started again: one line says so, a new token is taken, values go on."""
    with running(tmp_path) as relay:
        await relay.publish("prices.A", 1)
        async with listening(relay, "prices.A", *asking(relay), "--count", "2") as process:
            first = await line_of(process)
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)
            await relay.publish("prices.A", 2)
            second = await line_of(process)
            code, _, errors = await end_of(process)
    assert (first["data"], second["data"], code) == (1, 2, 0)
    assert errors.startswith("disconnected: 1006 ")
    assert "trying again in" in errors


# On a terminal


class Terminal:
    """A terminal, 100 columns and 24 lines, with a process in it."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(),
            close_fds=True,
        )
        os.close(theirs)
        self.screen = ""

    def until(self, pattern: str) -> str:
        """Read on until the pattern was on the screen."""
        latest = time.monotonic() + 20
        while not re.search(pattern, self.screen):
            chunk = b""
            if time.monotonic() < latest and select.select([self._ours], [], [], 20)[0]:
                with contextlib.suppress(OSError):  # what reading says once the process has ended
                    chunk = os.read(self._ours, 65_536)
            assert chunk, f"{pattern} was never on the screen: {self.screen}"
            self.screen += chunk.decode(errors="replace")
        return self.screen

    def end(self) -> int:
        """Interrupt the process as Ctrl-C does and read what it still shows; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # what reading says once the process has ended
            while chunk := os.read(self._ours, 65_536):
                self.screen += chunk.decode(errors="replace")
        return self.process.wait(20)

    def close(self) -> None:
        """End the process, if it still runs."""
        self.process.kill()
        self.process.wait(20)
        os.close(self._ours)


async def test_a_terminal_shows_a_live_table(relay: Relay) -> None:
    """Channel, value, seq, age and rate, redrawn as values come; a price can't command the terminal."""
    hostile = '{"symbol":"A\\u001b[2J","bid":"1.10\x9b31m"}'
    await relay.publish_raw(b'{"channel":"prices.TABLE","data":%b}' % hostile.encode())
    arguments = [f"{relay.stream_url}/ws/prices", "prices.TABLE", *asking(relay)]
    with contextlib.closing(Terminal(*arguments)) as terminal:
        screen = await asyncio.to_thread(terminal.until, r"prices\.TABLE .* \d+\.\d s ")
        assert re.search(r"channel.*value.*seq.*age.*rate", screen)
        assert "bid 1.10\N{REPLACEMENT CHARACTER}31m" in screen
        assert "symbol A\N{REPLACEMENT CHARACTER}[2J" in screen
        assert "\x1b[2J" not in screen
        assert "\x9b" not in screen
        await relay.publish("prices.TABLE", {"bid": "2.20"})
        await asyncio.to_thread(terminal.until, r"bid 2\.20")
        assert await asyncio.to_thread(terminal.end) == 130
        assert "Traceback" not in terminal.screen


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "a\nb", "a\u2028b", "\x9b31m", "\u202egnirts"])
def test_what_a_terminal_obeys_is_replaced(text: str) -> None:
    """Escapes, line breaks, C1 controls and direction marks are shown as replacement characters."""
    assert printable(text).isprintable()
    assert "\N{REPLACEMENT CHARACTER}" in printable(text)
