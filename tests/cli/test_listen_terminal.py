"""`relay listen` on a terminal: a live table, or JSON lines, and nothing that a terminal would obey."""

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from relay.cli.output import printable
from tests.support.listen_command import COMMAND, asking, environment
from tests.support.relay_process import Relay, running


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for this module."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


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


async def test_a_terminal_can_have_json_lines_too(relay: Relay) -> None:
    """With --json a terminal gets what a pipe gets, and still nothing that it would obey."""
    await relay.publish_raw('{"channel":"prices.LINES","data":{"bid": "1.10\x9b31m\U000e0001"}}'.encode())
    arguments = [f"{relay.stream_url}/ws/prices", "prices.LINES", *asking(relay), "--json"]
    with contextlib.closing(Terminal(*arguments)) as terminal:
        screen = await asyncio.to_thread(terminal.until, r'"epoch":"[^"]+"\}\r\n')
        assert "\x9b" not in screen
        assert r'"data":{"bid": "1.10\u009b31m\udb40\udc01"}' in screen
        assert json.loads(screen.partition("\r")[0])["data"] == {"bid": "1.10\x9b31m\U000e0001"}
        assert await asyncio.to_thread(terminal.end) == 130


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "a\nb", "a\u2028b", "\x9b31m", "\u202egnirts"])
def test_what_a_terminal_obeys_is_replaced(text: str) -> None:
    """Escapes, line breaks, C1 controls and direction marks are shown as replacement characters."""
    assert printable(text).isprintable()
    assert "\N{REPLACEMENT CHARACTER}" in printable(text)
