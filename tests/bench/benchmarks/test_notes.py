"""What the benchmarks beside fanout say about their figures, and when they call a run failed."""

from dataclasses import replace
from typing import Any

import msgspec

from relay.bench.benchmarks.audit import Audit
from relay.bench.benchmarks.connect import Bursts, Connect
from relay.bench.benchmarks.mixed import Mixed
from relay.bench.benchmarks.nodes import Nodes, OneNode, Several, Workers
from relay.bench.benchmarks.proxy import Proxied, Proxy
from relay.bench.benchmarks.slow_reader import SlowReader, SlowReading
from relay.bench.load.connections import Arrived, Connected
from relay.bench.load.engine_server import EnginePath
from relay.bench.load.requester import Answered
from relay.bench.load.slow_reader import Read
from relay.bench.load.subscribers import Latency
from relay.bench.report import Row, Run
from tests.support.bench_results import GOOD, side

SLOW = SlowReader(readers=10, rate=100, rate_bytes=2000, alone_s=1, seconds=20, stopped_within_s=40, runs=1)
MIXED = Mixed(subscribers=10, each=2, channels=4, rate=100, seconds=1, interval_ms=0, runs=1)
CONNECT = Connect(connections=1000, parallel=10, hold=10, rate=10, quiet_s=1, runs=1)


def reading(measured: Any = GOOD, *, closed_after_s: float | None = 30.0, **read: Any) -> SlowReading:
    """Return a slow reader's side that went well but for what is named."""
    good: dict[str, Any] = {
        "age_p50_ms": 700.0,
        "age_max_ms": 900.0,
        "ageing_ms_per_s": 1.0,
        "closed": "",
    }
    return SlowReading(
        measured=measured, read=Read(**(good | read)), dropped_after_s=closed_after_s, stopped_memory_kib=2.0
    )


def bursts(
    held: Any = GOOD, *, load_cores: float = 0.1, lost: int = 0, refusals: dict[str, int] | None = None
) -> Bursts:
    """Return a burst that went well."""
    one = Connected(
        connections=1000,
        cpu_us_a_connect=800.0,
        connects_per_s=500.0,
        memory_kib_a_connection=16.4,
        cpu_us_a_token=500.0,
        one_by_one_p50_ms=0.9,
        load_cores=load_cores,
    )
    refusals = refusals or {}
    arrived = Arrived(
        connections=1000,
        lost=lost,
        refusals=refusals,
        refused=sum(refusals.values()),
        max_ms=2000.0,
        connects_per_s=100.0,
    )
    return Bursts(alone=one, beside=arrived, held=held)


def test_a_good_slow_reader_needs_no_words() -> None:
    """Ages, windows of latency and the stopped reader's cost are rows; publishing that was stopped is no fault."""
    good = reading(side(complete=False))
    found = SLOW.report([Run(relay=good, yardstick=good)])
    assert found.notes == []
    assert found.is_whole
    rows = {name: relay for name, relay, *_ in map(Row.cells, found.rows)}
    assert rows["slow reader: age p50 ms"] == "700"
    assert rows["stopped reader: dropped after s"] == "30.0"
    assert rows["stopped reader: memory KiB"] == "2"
    assert rows["others p99 ms, beside it"] == "2.0"


def test_every_doubt_about_a_slow_reader_is_said() -> None:
    """A connection that was closed, a stopped reader that stays, what others lost."""
    bad = reading(
        side(lost=3),
        closed_after_s=None,
        closed="The server closed the slow reader's connection.",
    )
    found = SLOW.report([Run(relay=bad, yardstick=reading())])
    said = "\n".join(found.notes)
    assert "Of the relay: The server closed the slow reader's connection." in said
    assert "The relay did not drop the reader that stopped, in 40 s." in said
    assert "The relay LOST or repeated something" in said
    assert "yardstick" not in said
    assert not found.is_whole


def test_connect_says_what_each_costs() -> None:
    """Tokens and connections have rows of their own, and a busy program is a note."""
    found = CONNECT.report([Run(relay=bursts(), yardstick=bursts(load_cores=0.95))])
    rows = {name: relay for name, relay, *_ in map(Row.cells, found.rows)}
    assert (rows["CPU µs a connect"], rows["CPU µs a token"]) == ("800", "500")
    assert rows["connects/s"] == "500"
    assert rows["memory KiB a connection"] == "16.4"
    assert len(found.notes) == 1
    assert found.notes[0].startswith(
        "The new connections' program used up to 95% of a core against the yardstick"
    )
    assert found.is_whole
    assert not CONNECT.report([Run(relay=bursts(side(lost=1)), yardstick=bursts())]).is_whole


def test_connect_says_who_had_to_wait() -> None:
    """Browsers that had to wait are a note; one that got no connection makes the run a failure."""
    waited = bursts(refusals={"token: 429": 1200, "handshake: 401": 3})
    found = CONNECT.report([Run(relay=waited, yardstick=bursts())])
    assert found.is_whole
    assert found.notes == [
        "Browsers of the relay had to wait or to try again: token: 429 (1,200), handshake: 401 (3)."
    ]
    assert not CONNECT.report([Run(relay=bursts(lost=1), yardstick=bursts())]).is_whole


def test_mixed_fails_when_a_last_value_is_missing() -> None:
    """What the relay lost is a failure, what it conflated is not."""
    assert MIXED.report([Run(relay=side(conflated=7), yardstick=GOOD)]).is_whole
    found = MIXED.report([Run(relay=side(lost=1), yardstick=GOOD)])
    assert not found.is_whole
    assert found.notes == ["The relay LOST or repeated something: its figures say what."]


def test_audit_says_what_the_log_costs() -> None:
    """The median of the runs' own differences, and how far they lie apart where there are several."""
    options = Audit(connections=1000, parallel=10, runs=3)

    def using(cpu_us: float) -> Bursts:
        good = bursts()
        return replace(good, alone=msgspec.structs.replace(good.alone, cpu_us_a_connect=cpu_us))

    pairs = ((850, 800), (830, 820), (900, 800))
    runs = [Run(relay=using(ours), yardstick=using(theirs)) for ours, theirs in pairs]
    found = options.report(runs)
    assert "The audit log costs a connection 50 µs of CPU, 10 to 100 in single runs." in found.notes
    assert "The audit log costs a connection 50 µs of CPU." in options.report(runs[:1]).notes


def test_a_proxy_run_with_failures_says_whose_they_were() -> None:
    """An unanswered call fails the run of the relay; one of a yardstick makes its figures too small, and is said."""

    def answered(ok: int) -> Answered:
        return Answered(
            requests=100,
            ok=ok,
            limited=0,
            refused=100 - ok,
            unanswered=0,
            slowest_s=0.1,
            p50_ms=1.0,
            p99_ms=2.0,
            seconds=1.0,
            ok_per_s=100.0,
            cpu_us_a_request=500.0,
            load_cores=0.1,
        )

    good = Proxied(calls=answered(100), nginx=answered(100))
    proxy = Proxy(rate=100, seconds=1, connections=5, runs=1)
    assert proxy.report([Run(relay=Proxied(calls=answered(100)), yardstick=good)]).notes == []
    bad = Proxied(calls=answered(98))
    found = proxy.report([Run(relay=Proxied(calls=answered(99)), yardstick=bad)])
    assert not found.is_whole
    assert found.notes[:2] == [
        "The plain forward failed 2 calls: its figures are those of less work.",
        "nginx was not measured: it is not installed.",
    ]


def several(
    *, latency_ms: float = 1.0, cpu_us: float = 800.0, path: EnginePath | None = None, processes: int = 1
) -> Several:
    """Return a side of `nodes` that went well."""
    connected = msgspec.structs.replace(bursts().alone, cpu_us_a_connect=cpu_us)
    node = OneNode(
        published=GOOD,
        own_cores=0.5,
        engine_us_a_message=20.0,
        ticked=side(windows=[Latency(samples=1000, p50_ms=latency_ms, p99_ms=latency_ms)]),
        connected=connected,
    )
    return Several(
        node=node,
        path=path,
        two=Workers(processes=processes, paced=GOOD, fanned=GOOD, connected=connected, rushed=connected),
    )


def test_nodes_tell_what_the_engine_adds_and_what_is_above_its_aim() -> None:
    """Latency is the median of the differences; an aim that is a ratio needs both sides."""
    path = EnginePath(cpu_us_a_message=31.0, cpu_us_a_claim=9, claims_p99_ms=9.0, resync_s=0.1, script_ms=2.0)
    ours = several(latency_ms=2.5, cpu_us=1000.0, path=path, processes=2)
    run = Run(relay=ours, yardstick=several(cpu_us=800.0))
    report = Nodes(runs=1).report([run])
    aims = {row.figure.key: row.aim for row in report.rows}
    assert report.notes[0].startswith("The engine adds 1.50 ms to the latency p50 ms; the aim is 2.")
    assert aims["path_us_a_message"] == "at most 30, missed"
    assert aims["cpu_us_a_connect"] == "at most 1.15, missed"
    assert aims["claims_p99_ms"] == "at most 15"
    capacity = next(row for row in report.rows if row.figure.key == "two_connects_cpu")
    assert (capacity.relay, capacity.yardstick, capacity.ratio) == (2000, 1250, 1.6)
    assert capacity.aim == "at least 1.7, missed"
