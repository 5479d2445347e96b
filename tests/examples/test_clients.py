"""The example clients, started as a reader starts them, against a real relay."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backends import demo_backend
from tests.support.relay_process import PUBLISHER_KEY, Relay, running

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for this module."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def run(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run an example to its end."""
    return subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_prices_are_published(relay: Relay) -> None:
    """All prices arrive in order, and only the channel that is not allowed is refused."""
    async with relay.connect(query="?channels=prices.EXAMPLE") as socket:
        await socket.read("subscribed")
        to = ("--url", relay.internal_url, "--key", PUBLISHER_KEY, "--count", "30")
        done = await asyncio.to_thread(run, "publish_prices.py", *to)
        assert (done.returncode, done.stderr) == (0, "")
        said = done.stdout.splitlines()
        assert said[0].startswith("31 prices are published to prices.EXAMPLE, in epoch ")
        assert [line.partition(":")[0] for line in said[1:]] == ["published", "refused"]
        frame = await socket.next()
        while frame["data"] != {"bid": "101.00", "ask": "101.05"}:
            frame = await socket.next()
        assert frame["seq"] == 32


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("publish_prices.py", ("--key", ""), "The publisher key does not have the form name.secret"),
        ("publish_prices.py", ("--key", "a.b", "--url", "nonsense"), "is not an address of a relay"),
        ("read_prices.py", ("--url", "http://127.0.0.1:9"), "The log-in at http://127.0.0.1:9 failed"),
    ],
)
def test_a_mistake_is_one_line(name: str, arguments: tuple[str, ...], sentence: str) -> None:
    """The example ends without a traceback."""
    done = run(name, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


async def test_prices_are_read(tmp_path: Path) -> None:
    """The reader logs in, takes a token for each attempt, and stops after the given number of values."""
    with demo_backend(tmp_path) as backend, running(tmp_path, bff=f'backend = "{backend}"') as relay:
        await relay.publish("prices.READ", {"bid": "1.10"})
        done = await asyncio.to_thread(
            run, "read_prices.py", "--url", relay.url, "--count", "1", "prices.READ"
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "prices.READ 1 {'bid': '1.10'}\n"
