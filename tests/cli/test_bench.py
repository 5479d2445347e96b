"""`relay bench fanout` as a user runs it: real processes, real tokens, and nothing remains."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench_process import OnTerminal, bench, processes_of

SMALL = ("fanout", "--subscribers", "20", "--ticks", "20", "--rate", "100", "--runs", "1")
LONG = ("fanout", "--subscribers", "5", "--ticks", "2500", "--rate", "50", "--runs", "1")


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator[OnTerminal]:
    """A run of a minute, in the middle of its first ticks."""
    run = OnTerminal(tmp_path, LONG)
    try:
        run.read_until(r"[1-9]\d*/2500")
        yield run
    finally:
        run.close()


def test_every_delivery_arrives_and_has_its_price(tmp_path: Path) -> None:
    """A small run delivers everything on both sides, has every figure, and leaves no process and no file."""
    done = bench(tmp_path, *SMALL, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["subscribers"], found["ticks"]) == (20, 20)
    for side in ("relay", "yardstick"):
        figures = found[side]
        assert figures["delivered"] == 400
        assert (figures["conflated"], figures["lost"], figures["repeated"]) == (0, 0, 0)
        assert all(isinstance(value, int | float) for value in figures.values()), figures
        assert 0 < figures["latency_p50_ms"] <= figures["latency_p99_ms"]
    assert set(found["ratio"]) >= {"cpu_us_a_delivery", "deliveries_per_s"}
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_into_a_pipe_it_is_a_line_for_each_figure(tmp_path: Path) -> None:
    """With tabs between the cells, without colour or frame; settings of the caller's own relay change nothing."""
    done = bench(
        tmp_path, *SMALL, "--rate", "0", variables={"RELAY_LOG__LEVEL": "loud", "RELAY_NONSENSE": "1"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, headings, *lines = done.stdout.splitlines()
    assert first == "fanout: 20 subscribers, ticks as fast as they go, 20 ticks, medians of 1"
    assert headings.split("\t") == ["figure", "relay", "broadcast()", "ratio"]
    price = next(line for line in lines if line.startswith("CPU µs a delivery"))
    assert len(price.split("\t")) == 4
    assert "\x1b" not in done.stdout


def test_on_a_terminal_it_shows_progress_and_a_table(tmp_path: Path) -> None:
    """Each side is named while it runs, and the table comes at the end."""
    run = OnTerminal(tmp_path, SMALL)
    try:
        assert run.end() == 0
    finally:
        run.close()
    assert "run 1 of 1, relay" in run.shown
    assert "run 1 of 1, yardstick" in run.shown
    assert "broadcast()" in run.shown
    assert "CPU µs a delivery" in run.shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_can_be_stopped(long_run: OnTerminal, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end it in the middle: no traceback, no process, no file."""
    long_run.process.send_signal(number)
    assert long_run.end() == code
    assert "Traceback" not in long_run.shown
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_relay_that_dies_is_told(long_run: OnTerminal, tmp_path: Path) -> None:
    """Half a measurement is none: one sentence, exit code 1, and everything is cleaned up."""
    relay = next(process for process in processes_of(tmp_path) if "serve" in process.cmdline())
    relay.kill()
    assert long_run.end() == 1
    assert "relay bench: " in long_run.shown
    assert "Traceback" not in long_run.shown
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--subscribers", "0"), "--subscribers"),
        (("--subscribers", "20001"), "--subscribers"),
        (("--rate", "-1"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--ticks", "0"), "--ticks"),
        (("--runs", "many"), "--runs"),
    ],
)
def test_what_can_not_be_meant_is_refused(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """A mistake in the command is a sentence about it and exit code 2, before anything starts."""
    done = bench(tmp_path, "fanout", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
