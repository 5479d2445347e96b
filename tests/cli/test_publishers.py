"""`relay publishers`: the table, the JSON, and mistakes in one line."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.operators import OPERATORS, OPS, REVOKER
from tests.support.relay_process import Relay, running


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators and one publisher, which has published two values and a stale one."""
    with running(tmp_path_factory.mktemp("publishers"), extra=OPERATORS) as started:
        for version in (1, 2, 2):
            asyncio.run(started.publish("prices.A", 1, version=version))
        yield started


def run(*arguments: str, key: str = OPS) -> subprocess.CompletedProcess[str]:
    """Run the command with an operator's key in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "relay", "publishers", "--interval", "0.1", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "RELAY_OPERATOR_KEY": key, "COLUMNS": "80"},
        check=False,
    )


def test_a_table_says_who_publishes_what(relay: Relay) -> None:
    """One line a publisher: what it may, what it did, and when it was last heard of."""
    result = run("--url", relay.internal_url)
    assert result.returncode == 0, result.stderr
    header, row = [line.split("\t") for line in result.stdout.splitlines()]
    assert header[:3] == ["publisher", "channels", "msg/s"]
    assert row[:2] == ["pricing", "prices.>, trades.>"]
    assert row[-2].endswith(" s")
    assert row[-1] == "none"


def test_json_has_the_counts_and_the_rates(relay: Relay) -> None:
    """For scripts."""
    result = run("--url", relay.internal_url, "--json")
    (row,) = json.loads(result.stdout)["publishers"]
    assert (row["publisher"], row["published"], row["stale"], row["messages_per_s"]) == ("pricing", 2, 1, 0.0)


@pytest.mark.parametrize(
    ("arguments", "key", "code", "sentence"),
    [
        ((), "", 2, "An operator key is needed"),
        ((), "ops.wrong", 2, "answers 401"),
        ((), REVOKER, 2, "answers 403"),
        (("--url", "http://127.0.0.1:1"), OPS, 2, "can't be reached"),
        (("--url", "nowhere"), OPS, 2, "http://"),
    ],
)
def test_mistakes_are_one_line(
    relay: Relay, arguments: tuple[str, ...], key: str, code: int, sentence: str
) -> None:
    """What to do is in it, and no traceback."""
    result = run("--url", relay.internal_url, *arguments, key=key)
    assert (result.returncode, result.stdout) == (code, "")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_server_that_is_no_relay(tmp_path: Path, relay: Relay) -> None:
    """A server that is not the internal listener is named as such."""
    result = run("--url", relay.url)
    assert result.returncode == 2
    assert "answers 404" in result.stderr
