"""The other benchmarks as a user runs them, with loads so small that only counts mean anything."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Benchmark, Progress
from relay.bench.benchmarks.fanout import Fanout
from relay.bench.benchmarks.mixed import Mixed
from relay.bench.load.plain_http import nginx_program
from relay.bench.report import Report
from relay.cli import main
from tests.support.bench_process import OnTerminal, measured
from tests.support.engines import find_program

START_NS = 1_723_161_254_000_000_000


def recording(folder: Path) -> Path:
    """Write a recording of 40 quotes and 20 trades of one symbol, in four seconds."""
    lines = []
    for number in range(40):
        at = START_NS + number * 100_000_000
        quote = {"u": number, "s": "BTCUSDT", "b": f"{number}.0", "B": "1.0", "a": "99.0", "A": "1.0"}
        lines.append(f"{at} {json.dumps({'stream': 'btcusdt@bookTicker', 'data': quote})}\n")
        if number % 2:
            trade = {"e": "trade", "s": "BTCUSDT", "t": number, "p": "1.5", "q": "0.1", "m": True}
            lines.append(f"{at} {json.dumps({'stream': 'btcusdt@trade', 'data': trade})}\n")
    path = folder / "spot_btcusdt"
    path.write_text("".join(lines))
    return path


def test_event_streams_get_every_tick(tmp_path: Path) -> None:
    """`fanout --transport sse` compares the relay's event streams with its WebSockets, and loses nothing on either."""
    small = ("--subscribers", "5", "--rate", "50", "--ticks", "10")
    found = measured(tmp_path, "fanout", "--transport", "sse", *small)
    assert (found["transport"], found["yardstick_is"][:22]) == ("sse", "the relay's WebSockets")
    for side in ("relay", "yardstick"):
        assert (found[side]["delivered"], found[side]["lost"], found[side]["repeated"]) == (50, 0, 0)


def test_mixed_counts_every_channel(tmp_path: Path) -> None:
    """Each tick reaches as many subscribers as its channel has, and every last value arrives."""
    found = measured(
        tmp_path,
        *(
            "mixed",
            "--subscribers",
            "10",
            "--each",
            "3",
            "--channels",
            "6",
            "--rate",
            "100",
            "--seconds",
            "0.6",
        ),
    )
    for side in ("relay", "yardstick"):
        # 60 ticks on 6 channels, of which each has 5 subscribers
        assert found[side]["delivered"] == 300
        assert (found[side]["conflated"], found[side]["lost"], found[side]["repeated"]) == (0, 0, 0)
        assert found["each"][0][side]["counted"]["groups"][0]["ended"] == 30


def test_mixed_with_an_interval_keeps_the_newest(tmp_path: Path) -> None:
    """With an interval, what is not sent is conflated on both sides, and nothing is lost."""
    found = measured(
        tmp_path,
        *(
            "mixed",
            "--subscribers",
            "3",
            "--each",
            "2",
            "--channels",
            "2",
            "--rate",
            "200",
            "--seconds",
            "0.5",
        ),
        *("--interval", "250"),
    )
    for side in ("relay", "yardstick"):
        figures = found[side]
        assert figures["delivered"] + figures["conflated"] == 300
        assert figures["conflated"] > 0
        assert (figures["lost"], figures["repeated"]) == (0, 0)


def test_slow_reader_tells_ages_and_latencies(tmp_path: Path) -> None:
    """The slow reader's ages, the others' latency without and with it, and what became of the stopped one."""
    found = measured(
        tmp_path,
        *("slow-reader", "--readers", "3", "--rate", "100", "--rate-bytes", "5000"),
        *("--alone", "0.3", "--seconds", "1", "--work-ms", "30", "--stopped-within", "0.5"),
    )
    for side in ("relay", "yardstick"):
        figures = found[side]
        assert 0 <= figures["age_p50_ms"] <= figures["age_max_ms"]
        assert figures["alone_p99_ms"] > 0
        assert figures["beside_p99_ms"] > 0
        assert figures["beside_stopped_p99_ms"] > 0
        assert figures["stopped_closed_after_s"] is None
        assert (figures["lost"], figures["repeated"]) == (0, 0)
    assert 0 <= found["relay"]["caller_p50_ms"] <= found["relay"]["caller_max_ms"]
    assert found["yardstick"]["caller_p50_ms"] is None
    assert "The relay did not drop the reader that stopped, in 0.5 s." in found["notes"]


def test_slow_reader_of_an_event_stream_without_a_stopped_one(tmp_path: Path) -> None:
    """Its prices are timed as a WebSocket's, which are the yardstick. What was not measured is not reported."""
    found = measured(
        tmp_path,
        *(
            "slow-reader",
            "--readers",
            "2",
            "--rate",
            "50",
            "--alone",
            "0.2",
            "--seconds",
            "0.5",
            "--no-stopped",
            "--transport",
            "sse",
        ),
    )
    for side in ("relay", "yardstick"):
        assert 0 <= found[side]["age_p50_ms"] <= found[side]["age_max_ms"]
        assert found[side]["lost"] == 0
    assert found["relay"]["caller_p50_ms"] is None
    assert found["relay"]["stopped_memory_kib"] is None
    assert not any("stopped" in note for note in found["notes"])


def test_connect_tells_tokens_from_connections(tmp_path: Path) -> None:
    """The relay's tokens have a price of their own, the yardstick has none; prices are timed through the burst."""
    found = measured(
        tmp_path,
        *(
            "connect",
            "--connections",
            "12",
            "--parallel",
            "4",
            "--hold",
            "3",
            "--rate",
            "50",
            "--quiet",
            "0.3",
        ),
    )
    relay, yardstick = found["relay"], found["yardstick"]
    assert relay["cpu_us_a_token"] >= 0
    assert yardstick["cpu_us_a_token"] is None
    for figures in (relay, yardstick):
        assert figures["connects_per_s"] > 0
        assert figures["quiet_p99_ms"] > 0
        assert (figures["lost"], figures["repeated"]) == (0, 0)
    one = found["each"][0]["relay"]
    assert (one["alone"]["connections"], one["beside"]["connections"]) == (12, 12)
    assert (relay["newcomers_lost"], one["beside"]["refusals"]) == (0, {})
    assert relay["burst_in_max_ms"] > 0


def test_replay_loses_no_trade(tmp_path: Path) -> None:
    """Every trade reaches every subscriber once; prices come at their interval."""
    found = measured(
        tmp_path,
        "replay",
        str(recording(tmp_path)),
        "--speed",
        "10",
        "--subscribers",
        "3",
        "--interval",
        "50",
    )
    assert found["headline"].startswith("40 prices and 20 trades in ")
    for side in ("relay", "yardstick"):
        trades, prices = found["each"][0][side]["counted"]["groups"]
        assert (trades["delivered"], trades["lost"], trades["repeated"]) == (60, 0, 0)
        assert prices["delivered"] + prices["conflated"] == 120
        assert found[side]["lost"] == 0
        assert found[side]["trades_p99_ms"] > 0
        assert found[side]["prices_p99_ms"] > 0


def test_bandwidth_counts_the_bytes_of_the_same_values(tmp_path: Path) -> None:
    """Compressed readers lose nothing, and get each value in fewer bytes than plain ones."""
    options = ("--parts", "3", "--seconds", "1", "--subscribers", "3", "--interval", "50")
    found = measured(tmp_path, "bandwidth", str(recording(tmp_path)), *options)
    for side in ("relay", "yardstick"):
        (prices,) = found["each"][0][side]["counted"]["groups"]
        assert prices["ended"] == 9
        assert prices["bytes"] > 0
        assert found[side]["lost"] == 0
    assert found["ratio"]["bytes_a_value"] < 1


def test_a_benchmark_shows_itself_on_a_terminal(tmp_path: Path) -> None:
    """What goes on and how far it is, then a table; without subscribers of one burst alone."""
    run = OnTerminal(tmp_path, ("connect", "--connections", "5", "--hold", "0", "--runs", "1"))
    try:
        assert run.end() == 0
    finally:
        run.close()
    assert "run 1 of 1, relay: 0/5 connections" in run.shown
    assert "no checks" in run.shown
    assert "CPU µs a connect" in run.shown
    assert "prices" not in run.shown


def test_all_write_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markdown, one JSON object of all, and exit code 1 for one that failed, with its sentence."""

    measured_once: list[Report] = []

    class Small(Fanout):
        def measure(self, progress: Progress) -> Report:
            if not measured_once:
                measured_once.append(super().measure(progress))
            return measured_once[0]

    class Failing(Mixed):
        def measure(self, progress: Progress) -> Report:
            raise BenchError("It did not start.")

    def small(**_options: object) -> list[Benchmark[Any]]:
        return [Small(subscribers=3, rate=100, ticks=10, runs=1), Failing()]

    monkeypatch.setattr("relay.cli.bench.suite", small)
    out = tmp_path / "report.md"
    monkeypatch.setattr(sys, "argv", ["relay", "bench", "all", "--out", str(out), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    shown = capsys.readouterr()
    fanout, mixed = json.loads(shown.out)["benches"]
    assert fanout["relay"]["delivered"] == 30
    assert mixed["error"] == "It did not start."
    assert f"{out} is written." in shown.err
    assert "relay bench: mixed: It did not start." in shown.err
    assert "| delivered | 30 | 30 |" in out.read_text("utf-8")

    monkeypatch.setattr("relay.cli.bench.suite", lambda **options: small(**options)[:1])
    monkeypatch.setattr(sys, "argv", ["relay", "bench", "all"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("fanout: 3 subscribers, ")


def refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run a command that is wrong; returns what it says."""
    monkeypatch.setattr(sys, "argv", ["relay", "bench", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mixed", "--each", "0"), "--each"),
        (("mixed", "--each", "9", "--channels", "8"), "--each 9 is more than there are: --channels is 8"),
        (("mixed", "--rate", "nan"), "--rate"),
        (("mixed", "--rate", "0"), "--rate"),
        (("mixed", "--interval", "60"), "the relay has the intervals 0, 50, 100, 250, 500, 1000 ms"),
        (("mixed", "--rate", "1000000", "--seconds", "1800"), "more than 10,000,000 ticks"),
        (("slow-reader", "--rate-bytes", "0"), "--rate-bytes"),
        (("slow-reader", "--seconds", "inf"), "--seconds"),
        (("slow-reader", "--alone", "nan"), "--alone"),
        (("connect", "--connections", "15001"), "--connections"),
        (("connect", "--parallel", "0"), "--parallel"),
        (("connect", "--hold", "-1"), "--hold"),
        (("audit", "--connections", "15001"), "--connections"),
        (("audit", "--runs", "0"), "--runs"),
        (("nodes", "--rate", "0"), "--rate"),
        (("nodes", "--idle", "-1"), "--idle"),
        (("replay",), "FILE"),
        (("replay", "/nowhere"), "/nowhere can't be read"),
        (("replay", "pyproject.toml"), "nothing to play in these files"),
        (("replay", "x", "--speed", "0"), "--speed"),
        (("replay", "x", "--speed", "nan"), "--speed"),
        (("bandwidth", "/nowhere"), "/nowhere can't be read"),
        (("all", "--out", "/nowhere/report.md"), "/nowhere/report.md can't be written"),
        (("all", "--runs", "0"), "--runs"),
        (("all", "/nowhere"), "/nowhere can't be read"),
        (("everything",), "No such command"),
    ],
)
def test_what_can_not_be_meant_is_refused(
    arguments: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake in the command is a sentence about it and exit code 2, before anything starts."""
    assert sentence in refused(arguments, monkeypatch, capsys)


def test_a_recording_has_only_so_much_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts of it become symbols of their own, so twenty symbols need twenty times as much of one."""
    sentence = refused(("bandwidth", str(recording(tmp_path))), monkeypatch, capsys)
    assert "--parts 5 is more than there are of 60 s: 1." in sentence


def test_a_recording_has_only_so_many_symbols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Subscribers of more symbols than there are would be subscribers of the same one twice."""
    sentence = refused(("replay", str(recording(tmp_path)), "--each", "2"), monkeypatch, capsys)
    assert "--each 2 is more than there are: the recording has 1." in sentence


def test_publish_counts_each_message_once_and_in_order(tmp_path: Path) -> None:
    """What the SDK's publisher was acked for has arrived, and each single request was taken on both sides."""
    found = measured(tmp_path, "publish", "--messages", "600", "--channels", "3", "--singles", "40")
    relay = found["relay"]
    assert relay["settled"] == relay["delivered"] == 600
    assert relay["lost"] == relay["repeated"] == relay["disordered"] == 0
    for side in ("relay", "yardstick"):
        assert found["each"][0][side]["singles"]["ok"] == 40
    assert found["yardstick"]["messages_per_s"] is None


def test_issue_answers_every_request(tmp_path: Path) -> None:
    """Each request gets its token, also when all come at once; none is left without an answer."""
    found = measured(tmp_path, "issue", "--requests", "60", "--parallel", "6", "--at-once", "80")
    for side in ("relay", "yardstick"):
        figures = found[side]
        assert found["each"][0][side]["steady"]["ok"] == 60
        assert figures["at_once_ok"] == 80
        assert figures["at_once_limited"] == figures["at_once_refused"] == figures["at_once_unanswered"] == 0
        assert figures["tokens_per_s"] > 0


def test_proxy_gets_an_answer_to_each_call(tmp_path: Path) -> None:
    """Through the relay, through a forward that checks nothing, and through nginx where it is installed."""
    found = measured(tmp_path, "proxy", "--rate", "100", "--seconds", "0.6", "--connections", "5")
    for side in ("relay", "yardstick"):
        figures = found[side]
        assert (figures["ok"], figures["refused"], figures["unanswered"]) == (60, 0, 0)
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    nginx = found["each"][0]["yardstick"]["nginx"]
    if nginx_program() is None:
        assert nginx is None
        assert "nginx was not measured: it is not installed." in found["notes"]
    else:
        assert nginx["ok"] == 60


def test_nodes_measures_an_engine_and_two_workers() -> None:
    """Each message once and in order, the path to the engine, new connections and idle ones."""
    find_program("redis")
    small = (
        "--messages",
        "300",
        "--rate",
        "3000",
        "--seconds",
        "0.2",
        "--connections",
        "6",
        "--parallel",
        "3",
    )
    path = ("--path-messages", "300", "--claims", "20", "--resync", "50")
    more = ("--subscribers", "4", "--ticks", "20", "--idle", "8")
    with tempfile.TemporaryDirectory() as short:  # workers have sockets, whose paths are short
        found = measured(Path(short), "nodes", *small, *path, *more)
    relay, yardstick = found["relay"], found["yardstick"]
    assert relay["lost"] == relay["repeated"] == relay["disordered"] == 0
    one = found["each"][0]["relay"]
    assert one["node"]["published"]["published"] == 300
    assert one["node"]["ticked"]["counted"]["groups"][0]["delivered"] == 2000
    assert one["two"]["fanned"]["counted"]["groups"][0]["ended"] == 4
    assert (relay["idle"], one["two"]["connected"]["connections"]) == (8, 6)
    assert relay["path_us_a_message"] > 0
    assert relay["resync_s"] > 0
    assert relay["script_ms"] > 0
    assert one["two"]["paced"]["counted"]["groups"][0]["delivered"] == 24
    assert yardstick["p50_ms"] > 0
    for only_here in ("path_us_a_message", "engine_us_a_message", "idle"):
        assert yardstick[only_here] is None


def test_nodes_without_an_engine_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with both programs, before anything starts."""
    monkeypatch.setenv("PATH", "/nowhere")
    sentence = refused(("nodes",), monkeypatch, capsys)
    assert "there is no redis-server and no valkey-server on PATH: install one of them" in sentence


def test_without_psutil_a_benchmark_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence and exit code 2; the options are shown all the same."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    for name in ("fanout", "issue"):
        sentence = refused((name,), monkeypatch, capsys)
        assert sentence.endswith("pip install 'scoped-relay[bench]'.\n")
        assert sentence.count("\n") == 1
    monkeypatch.setattr(sys, "argv", ["relay", "bench", "fanout", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "--subscribers" in capsys.readouterr().out
