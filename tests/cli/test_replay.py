"""`relay replay`, as a process against a real relay."""

import asyncio
import gzip
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.relay_process import PUBLISHER_KEY, Relay, running

COMMAND = [sys.executable, "-m", "relay", "replay"]
BEGIN = 1_723_161_254_000_000_000


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for this module."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def environment() -> dict[str, str]:
    """Return the environment without settings of the caller's own relay."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return kept | {"TERM": "xterm", "NO_COLOR": "1"}


def to(relay: Relay) -> list[str]:
    """Return the options that lead to the relay."""
    return ["--url", relay.internal_url, "--key", PUBLISHER_KEY]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )


def quote(ms: int, symbol: str, bid: str) -> bytes:
    """Return the recorded line of a quote."""
    data = {"s": symbol, "b": bid, "B": "1", "a": "9", "A": "1"}
    frame = {"stream": f"{symbol.lower()}@bookTicker", "data": data}
    return b"%d %b\n" % (BEGIN + ms * 1_000_000, json.dumps(frame).encode())


def trade(ms: int, symbol: str, number: int, price: str) -> bytes:
    """Return the recorded line of a trade, a taker's sale."""
    data = {"e": "trade", "s": symbol, "t": number, "p": price, "q": "2", "m": True}
    frame = {"stream": f"{symbol.lower()}@trade", "data": data}
    return b"%d %b\n" % (BEGIN + ms * 1_000_000, json.dumps(frame).encode())


def recording(path: Path, *lines: bytes) -> str:
    """Write a recording."""
    path.write_bytes(gzip.compress(b"".join(lines)))
    return str(path)


async def test_quotes_are_published(relay: Relay, tmp_path: Path) -> None:
    """Spot and futures go to their channels, other lines are counted, and the summary says it all."""
    depth = b'%d {"stream":"x@depth@100ms","data":{}}\n' % BEGIN
    spot = recording(tmp_path / "spot_x.gz", depth, *(quote(ms, "XUSDT", f"1.{ms}") for ms in range(100)))
    futures = recording(tmp_path / "usdm_x.gz", quote(50, "XUSDT", "2.5"))
    done = await asyncio.to_thread(run, spot, futures, "--speed", "10", *to(relay))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("101 quotes and 0 trades published in ")
    assert done.stdout.endswith(", 1 line of depth skipped\n")
    async with relay.connect(query="?channels=prices.XUSDT,prices.XUSDT-PERP") as socket:
        await socket.read("subscribed")
        last = {
            frame["channel"]: frame
            for frame in (await socket.read("snapshot"), await socket.read("snapshot"))
        }
    assert last["prices.XUSDT"]["data"] == {
        "symbol": "XUSDT",
        "bid": "1.99",
        "bid_size": "1",
        "ask": "9",
        "ask_size": "1",
    }
    assert last["prices.XUSDT"]["seq"] == 100
    assert last["prices.XUSDT-PERP"]["data"]["symbol"] == "XUSDT-PERP"


async def test_trades_are_published(relay: Relay, tmp_path: Path) -> None:
    """Every trade goes to its stream channel in order, with id and taker's side, beside the quotes."""
    lines = [trade(ms, "WUSDT", ms, "1.50") for ms in range(8)]
    path = recording(tmp_path / "usdm_w.gz", quote(0, "WUSDT", "1"), *lines)
    token = await relay.token(endpoint="trades")
    async with relay.connect(token, path="/ws/trades", query="?channels=trades.WUSDT-PERP") as socket:
        await socket.read("subscribed")
        done = await asyncio.to_thread(run, path, *to(relay))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("1 quote and 8 trades published in ")
        got: list[dict[str, object]] = []
        while len(got) < 8:
            frame = await socket.next()
            got += [frame["data"]] if frame["type"] in {"snapshot", "update"} else []
    assert [item["trade_id"] for item in got] == list(range(8))
    assert got[0] == {"symbol": "WUSDT-PERP", "trade_id": 0, "price": "1.50", "size": "2", "side": "sell"}


async def test_trades_can_be_left_out(relay: Relay, tmp_path: Path) -> None:
    """With an empty --trades-prefix they are counted as skipped."""
    path = recording(tmp_path / "spot_u.gz", quote(0, "UUSDT", "1"), trade(1, "UUSDT", 1, "1.50"))
    done = await asyncio.to_thread(run, path, "--trades-prefix", "", *to(relay))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 quote and 0 trades published in ")
    assert done.stdout.endswith(", 1 line of trade skipped\n")


async def test_a_key_without_trades_is_told_once_what_to_do(relay: Relay, tmp_path: Path) -> None:
    """Quotes are published; trades are counted, named once for all symbols, and not sent again and again."""
    lines = [trade(ms * 20, symbol, ms, "1.5") for ms in range(10) for symbol in ("PUSDT", "QUSDT")]
    path = recording(tmp_path / "spot_p.gz", quote(0, "PUSDT", "1"), *lines)
    done = await asyncio.to_thread(run, path, "--trades-prefix", "orders", *to(relay))
    assert done.returncode == 1
    [said] = done.stderr.splitlines()
    assert said.startswith("orders.PUSDT was refused: ")
    assert "relay.toml must include orders.>" in said
    assert '--trades-prefix ""' in said
    assert done.stdout.startswith("1 quote and 0 trades published")
    assert "20 refused" in done.stdout

    def is_denied(record: dict[str, Any]) -> bool:
        return "orders.PUSDT" in str(record["relay"].get("detail"))

    await relay.recorded(is_denied)  # records follow within 0.25 s
    assert len([record for record in relay.audit() if is_denied(record)]) == 1


def test_malformed_lines_are_named(relay: Relay, tmp_path: Path) -> None:
    """Each malformed line is named with its number up to twenty, the others are counted; the exit code is 1."""
    lines = [quote(0, "YUSDT", "1"), *[b"nonsense\n"] * 30, quote(1, "YUSDT", "2")]
    done = run(recording(tmp_path / "y.gz", *lines), *to(relay))
    assert done.returncode == 1
    errors = done.stderr.splitlines()
    assert errors[0].startswith("skipped y.gz, line 2: ")
    assert len(errors) == 21
    assert errors[-1] == "and 10 more like these"
    assert "2 quotes and 0 trades published" in done.stdout
    assert "30 malformed lines" in done.stdout


def test_refused_channels_are_said_once(relay: Relay, tmp_path: Path) -> None:
    """A key that may not publish there: one line, a count, exit code 1."""
    path = recording(tmp_path / "z.gz", *(quote(ms, "ZUSDT", "1") for ms in range(50)))
    done = run(path, "--channel-prefix", "orders", *to(relay))
    assert done.returncode == 1
    refused, nothing = done.stderr.splitlines()
    assert refused.startswith("orders.ZUSDT was refused: ")
    assert "--channel-prefix" in refused
    assert nothing.startswith("Nothing was published")
    assert "50 refused" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["none.gz", "--key", "a.b"], 2, "can't be read"),
        ([__file__], 2, "relay keys publisher"),
        ([__file__, "--key", "nonsense"], 2, "name.secret"),
        ([__file__, "--key", "a.b", "--speed", "0"], 2, "above 0"),
        ([__file__, "--key", "a.b", "--channel-prefix", "a b"], 2, "prefix of a channel"),
        ([__file__, "--key", "a.b", "--trades-prefix", ">"], 2, "prefix of a channel"),
        ([__file__, "--key", "a.b", "--trades-prefix", "", "--channel-prefix", ""], 2, "Neither quotes nor"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], code: int, sentence: str) -> None:
    """An error of the caller is one line."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_key_ends_it(relay: Relay, tmp_path: Path) -> None:
    """A key that the relay refuses is one line and exit code 1."""
    path = recording(tmp_path / "k.gz", quote(0, "KUSDT", "1"))
    done = run(path, "--url", relay.internal_url, "--key", "pricing.wrong")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "key is missing or wrong" in done.stderr
    assert done.stdout.startswith("0 quotes and 0 trades published")


async def test_ctrl_c_ends_with_a_summary(relay: Relay, tmp_path: Path) -> None:
    """SIGINT in the middle of a long pause: the summary, exit code 130, no traceback."""
    path = recording(tmp_path / "s.gz", quote(0, "SUSDT", "1"), quote(3_600_000, "SUSDT", "2"))
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        path,
        *to(relay),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    async with relay.connect(query="?channels=prices.SUSDT") as socket:
        await socket.read("subscribed")
        assert (await socket.next())["data"]["bid"] == "1"
    process.send_signal(signal.SIGINT)
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (130, b"")
    assert b" published in " in output  # 0 or 1: subscribers may have a value before its publisher hears so


def test_a_terminal_shows_a_bar(relay: Relay, tmp_path: Path) -> None:
    """On a terminal the progress has a rate and how far it is behind."""
    path = recording(tmp_path / "t.gz", *(quote(ms * 10, "TUSDT", "1") for ms in range(120)))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, path, *to(relay)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    ) as process:
        os.close(theirs)
        screen = b""
        while True:
            try:
                screen += os.read(ours, 65_536)
            except OSError:  # the process has ended
                break
        os.close(ours)
    assert process.returncode == 0
    text = screen.decode()
    assert "s behind" in text
    assert "100%" in text
    assert "120 quotes and 0 trades published" in text
