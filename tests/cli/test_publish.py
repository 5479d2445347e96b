"""`relay publish`, as a process against a real relay."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.cli.ndjson import Lines
from relay.cli.output import say_wait
from relay.client import PublishError
from tests.support.relay_process import PUBLISHER_KEY, Relay, Socket, running
from tests.support.symbols import SYMBOLS

COMMAND = [sys.executable, "-m", "relay", "publish"]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for this module."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def environment(**more: str) -> dict[str, str]:
    """Return the environment without settings of the caller's own relay."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")} | more


def run(*arguments: str, stdin: Any = subprocess.DEVNULL, text: bytes | None = None, **env: str) -> Any:
    """Run the command to its end."""
    where = {"input": text} if text is not None else {"stdin": stdin}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, env=environment(**env), timeout=60, check=False, **where
    )


def to(relay: Relay) -> list[str]:
    """Return the options that lead to the relay."""
    return ["--url", relay.internal_url, "--key", PUBLISHER_KEY]


@asynccontextmanager
async def reading(relay: Relay, *channels: str) -> AsyncIterator[Socket]:
    """Subscribe to channels that have no value yet."""
    async with relay.connect(query=f"?channels={','.join(channels)}") as socket:
        await socket.read("subscribed")
        yield socket


async def test_a_value_is_published_byte_for_byte(relay: Relay) -> None:
    """The value goes out byte for byte, and its position is printed."""
    async with reading(relay, "prices.ONE") as socket:
        done = await asyncio.to_thread(run, "prices.ONE", '{"p": 1.10000000000000000001}', *to(relay))
        while "heartbeat" in (frame := str(await socket.websocket.recv())):
            continue
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith("prices.ONE seq 1 epoch ")
    assert done.stderr == b""
    assert '"data":{"p": 1.10000000000000000001}' in frame


def test_lines_from_standard_input(relay: Relay) -> None:
    """Each line is a value; blank ones don't count, bad ones are named with their number, the others are sent."""
    text = b'{"a":1}\n\n{"a":\n[2]\r\n{"a":1,"a":2}\n"caf\xe9"\n"last, without a line break"'
    done = run("prices.LINES", *to(relay), text=text)
    assert done.returncode == 1
    first, second, latin_1 = done.stderr.decode().splitlines()
    assert first.startswith("line 3: ")
    assert (
        second
        == "line 5: The value must be JSON that every parser reads: a name appears twice in one object."
    )
    assert latin_1 == "line 6: The value must be JSON that every parser reads: not UTF-8 (at byte 4)."
    assert done.stdout.decode().startswith("3 published, 3 failed, in ")


def test_each_line_of_envelopes_names_its_channel(relay: Relay) -> None:
    """With --envelope each line names its channel; foreign channels and other forms are refused one by one."""
    lines = [
        {"channel": "prices.E1", "data": 1},
        {"channel": "prices.E2", "data": {"b": [1]}, "source_ts": 5},
        {"channel": "orders.1", "data": 1},
        {"data": 1},
        {"channel": "prices.E1", "data": 1, "more": 2},
        {"channel": "prices.*", "data": 1},
    ]
    done = run("--envelope", *to(relay), text="\n".join(map(json.dumps, lines)).encode())
    assert done.returncode == 1
    assert sorted(line.split(":")[0] for line in done.stderr.decode().splitlines()) == [
        "line 3",
        "line 4",
        "line 5",
        "line 6",
    ]
    assert done.stdout.startswith(b"2 published, 4 failed")


def test_a_file_and_nothing(relay: Relay, tmp_path: Path) -> None:
    """An ordinary file works as standard input, thousands of lines of it; so do an empty one and /dev/null."""
    file = tmp_path / "lines"
    file.write_bytes(b"".join(b'{"n":%d}\n' % number for number in range(20_000)))
    with file.open("rb") as stdin:
        done = run("prices.FILE", *to(relay), stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"20,000 published, in ")
    done = run("prices.FILE", *to(relay))
    assert (done.returncode, done.stdout[:13]) == (0, b"0 published, ")


def test_files_are_published_in_order(relay: Relay, tmp_path: Path) -> None:
    """Lines of several files go out one file after the other, and a bad one is named with its file."""
    (tmp_path / "one").write_bytes(b"1\n2\nbad\n")
    (tmp_path / "two").write_bytes(b'{"channel":1}\n3')
    done = run("prices.FILES", *to(relay), "--file", str(tmp_path / "one"), "-f", str(tmp_path / "two"))
    assert done.returncode == 1
    assert done.stderr.decode().startswith("one, line 3: ")
    assert done.stdout.startswith(b"4 published, 1 failed")
    last = run("prices.FILES", "4", *to(relay))
    assert last.stdout.startswith(b"prices.FILES seq 5 ")


def test_a_file_that_is_not_there_publishes_nothing(relay: Relay, tmp_path: Path) -> None:
    """All files are opened first; a folder is none."""
    (tmp_path / "one").write_bytes(b"1\n")
    for wrong in (tmp_path / "none", tmp_path):
        done = run("prices.NONE", *to(relay), "--file", str(tmp_path / "one"), "--file", str(wrong))
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode().startswith(f"{wrong} can't be read: ")
        assert done.stderr.count(b"\n") == 1
    assert run("prices.NONE", "1", *to(relay)).stdout.startswith(b"prices.NONE seq 1 ")


def test_a_terminal_shows_a_bar(relay: Relay, tmp_path: Path) -> None:
    """On a terminal the progress has a share and a rate, and bad lines stay above it, harmless."""
    (tmp_path / "lines").write_bytes(
        b"".join(b"%d\n" % number for number in range(30_000)) + b"\x1b]0;owned\n"
    )
    ours, theirs = pty.openpty()
    command = [*COMMAND, "prices.BAR", *to(relay), "--file", str(tmp_path / "lines")]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm", COLUMNS="120")
    ) as process:
        os.close(theirs)
        screen = b""
        while True:
            try:
                screen += os.read(ours, 65_536)
            except OSError:  # the process has ended
                break
        os.close(ours)
    assert process.returncode == 1
    text = screen.decode()
    assert "%" in text
    assert "lines, line 30001: " in text
    assert "30,000 published, 1 failed, in " in text
    assert "\x1b]0;" not in text


def test_a_line_without_end_is_refused(relay: Relay) -> None:
    """A line of megabytes costs one sentence and no memory; the line behind it is published."""
    done = run("prices.LONG", *to(relay), text=b'"' + b"x" * 3_000_000 + b'"\n1\n')
    assert done.returncode == 1
    assert done.stderr.decode().startswith("line 1: it is longer than")
    assert done.stdout.startswith(b"1 published, 1 failed")


async def test_a_line_goes_out_while_the_next_is_not_there(relay: Relay) -> None:
    """A pipe that stays open is published line by line; Ctrl-C then ends it quietly with 130."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "prices.PIPE",
        *to(relay),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    async with reading(relay, "prices.PIPE") as socket:
        process.stdin.write(b'{"n":1}\n{"n"')
        first = await socket.next()
        process.stdin.write(b":2}\n")
        second = await socket.next()
    process.send_signal(signal.SIGINT)
    output, errors = await process.communicate()
    assert (first["data"], second["data"]) == ({"n": 1}, {"n": 2})
    assert (process.returncode, errors) == (130, b"")
    # subscribers may have the second value before its publisher hears that it was taken
    assert output.startswith((b"1 published", b"2 published"))


def test_the_key_comes_from_the_environment(relay: Relay) -> None:
    """RELAY_PUBLISH_KEY keeps the key out of the process list."""
    done = run("prices.ENV", "1", "--url", relay.internal_url, RELAY_PUBLISH_KEY=PUBLISHER_KEY)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "Name a channel"),
        (["prices.A", "1", "--envelope", "--key", "a.b"], 2, "Name a channel"),
        (["prices.A", "1", "--file", __file__, "--key", "a.b"], 2, "either a value or --file"),
        (["prices.A", "1"], 2, "relay keys publisher"),
        (["prices.A", "1", "--key", "nonsense"], 2, "name.secret"),
        (["prices.A", "1", "--key", "a.b", "--url", "nonsense"], 2, "is not an address of a relay"),
        (["prices.A", "1", "--key", "a.b", "--url", "http://127.0.0.1:9"], 1, "can't be reached"),
        (["prices.A", "nope", "--key", "a.b"], 1, "must be JSON"),
        (["prices.A", "", "--key", "a.b"], 1, "must be JSON"),
        (["prices.*", "1", "--key", "a.b"], 1, "not a channel"),
        (["no channel", "--key", "a.b"], 2, "not a channel"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], code: int, sentence: str) -> None:
    """Whatever is wrong with the call is said in one line, with the right exit code and no traceback."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert sentence in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_a_wait_is_said_unless_it_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """While a relay is away the command says when it tries again; a final refusal is said once, at the end."""
    say_wait(PublishError("unreachable", "It can't be reached\x1b[2J.", retryable=True), 1.5)
    say_wait(PublishError("invalid_key", "The key is wrong."), 1.5)
    said = capsys.readouterr().err
    assert said == "It can't be reached\N{REPLACEMENT CHARACTER}[2J. Trying again in 1.5 s.\n"


def test_a_wrong_key_stops_the_stream(relay: Relay) -> None:
    """A key that the relay refuses ends the command, and says which lines were not published."""
    done = run("prices.A", "--url", relay.internal_url, "--key", "pricing.wrong", text=b"1\n2\n3\n")
    assert done.returncode == 1
    assert done.stdout.startswith(b"0 published, 3 failed")
    assert done.stderr.decode() == (
        "Lines 1 to 3 were not published, and nothing after them: The publisher key is missing or wrong.\n"
    )


@settings(deadline=None)
@given(
    content=st.binary(max_size=60).map(lambda b: b.replace(b"x", b"\n")), cuts=st.lists(st.integers(0, 60))
)
def test_lines_do_not_depend_on_how_they_are_read(content: bytes, cuts: list[int]) -> None:
    """However a stream is cut into chunks, the same lines come out with the same numbers."""
    lines = Lines(10)
    got = []
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for begin, end in pairwise(places):
        if begin != end:
            got += lines.feed(content[begin:end])
    got += lines.feed(b"")
    expected = [
        (number, None if len(line) > 10 else line.strip())
        for number, line in enumerate(content.split(b"\n"), start=1)
        if len(line) > 10 or line.strip()
    ]
    assert got == expected


async def test_symbols_of_exchanges_are_names(relay: Relay) -> None:
    """Each symbol can be published to, and the value arrives under that name."""
    channels = [f"prices.{symbol}" for symbol in SYMBOLS]
    async with relay.connect() as reader:
        await reader.read("error")  # nothing is subscribed yet
        await reader.send(type="subscribe", id=1, channels=channels)
        await reader.read("subscribed")
        lines = "\n".join(f'{{"channel":"{channel}","data":1}}' for channel in channels)
        done = run("--envelope", *to(relay), text=lines.encode())
        assert done.returncode == 0, done.stderr
        assert [(await reader.read("snapshot"))["channel"] for _ in channels] == channels
