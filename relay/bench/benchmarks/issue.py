"""`relay bench issue`: how many tokens a second, what one costs, and whether a crowd that asks at once is answered.

Two loads on one relay. In the first some connections ask one after the other; that is the price of a token. In the
second as many browsers as there are requests come at once, each on a connection of its own, and every one of them has
to be answered: 200, or 429 with a time to wait. The yardstick is a route that does nothing on the same server.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from relay.bench import BenchError
from relay.bench.benchmarks.delivery import LOOK_S
from relay.bench.benchmarks.runs import FILES_BESIDE, STALL_S, Progress, Run, Told, in_turn
from relay.bench.load import requester as asking
from relay.bench.load.processes import Child, allow_open_files, wait_for_words
from relay.bench.load.relay_process import own_relay
from relay.bench.load.requester import Asked
from relay.bench.load.targets import TOKEN_PATH
from relay.bench.report.report import Figure, Report, busy_note, make_report

BASE_S, EACH_S = 30.0, 0.02
"""Bound for all answers: a token takes a millisecond where nothing else runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueOptions:
    """What to measure: `requests` over `parallel` connections, and then `at_once`, each on a connection of its own."""

    requests: int
    parallel: int
    at_once: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """One side of one run: the requests one after the other, and those at once, if any were asked for."""

    steady: Asked
    at_once: Asked | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where requests go: bearers are sent in turn, and none if there are none; `pid` is the server's process."""

    url: str
    path: str
    bearers: Sequence[str]
    pid: int


def measure_issue(options: IssueOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(max(options.at_once, options.parallel) + FILES_BESIDE)

    def relay(folder: Path, told: Told) -> Crowd:
        # one token a session: what is measured is no limit
        with own_relay(folder, sessions=options.requests + options.at_once) as running:
            assert running.pid is not None
            where = Where(url=running.issuer, path=TOKEN_PATH, bearers=running.sessions, pid=running.pid)
            return _measure(options, where, folder, told)

    def yardstick(folder: Path, told: Told) -> Crowd:
        with empty_route(folder) as where:
            return _measure(options, where, folder, told)

    return issue_report(options, in_turn(options.runs, progress, relay=relay, yardstick=yardstick))


@contextlib.contextmanager
def empty_route(folder: Path) -> Iterator[Where]:
    """Serve a route that does nothing."""
    with Child.run("The yardstick", ["relay.bench.load.empty_route"], folder / "yardstick.log") as child:
        port = child.hear(within_s=STALL_S)["port"]
        yield Where(url=f"http://127.0.0.1:{port}", path="/", bearers=(), pid=child.pid)


def _measure(options: IssueOptions, where: Where, folder: Path, told: Told) -> Crowd:
    total = options.requests + options.at_once
    steady = ask(
        where,
        folder,
        requests=options.requests,
        parallel=options.parallel,
        first=0,
        told=lambda done: told(done, total, "requests"),
    )
    if not options.at_once:
        return Crowd(steady=steady, at_once=None)
    crowd = ask(
        where,
        folder,
        requests=options.at_once,
        parallel=options.at_once,
        first=options.requests,
        told=lambda done: told(options.requests + done, total, "requests"),
    )
    return Crowd(steady=steady, at_once=crowd)


def ask(
    where: Where,
    folder: Path,
    *,
    requests: int,
    parallel: int,
    first: int,
    body: str = "",
    told: Callable[[int], None],
) -> Asked:
    """Send requests, and return what came of them; the bearers before the `first` are left out.

    Raises:
        BenchError: if they are not over in time.
    """
    told(0)
    deadline = time.monotonic() + BASE_S + EACH_S * requests
    with Child.run("The askers", ["relay.bench.load.requester"], folder / "askers.log") as child:
        child.say(
            asking.Order(
                url=where.url,
                path=where.path,
                sessions=where.bearers[first : first + requests],
                requests=requests,
                parallel=parallel,
                body=body,
                pid=where.pid,
            )
        )
        while time.monotonic() < deadline:
            if not child.has_spoken():
                wait_for_words([child], within_s=LOOK_S)
                continue
            message = child.hear(within_s=STALL_S)
            if "asking" in message:
                return msgspec.convert(message["asking"], Asked)
            told(message["answered"])
    raise BenchError(f"Not all of {requests} requests were over after {BASE_S + EACH_S * requests:.0f} s.")


def _at_once(of: Callable[[Asked], float | None]) -> Callable[[Crowd], float | None]:
    return lambda side: None if side.at_once is None else of(side.at_once)


def _grown(asked: Asked) -> float:
    return (asked.memory_end - asked.memory_half) / (1 << 20)


FIGURES: tuple[Figure[Crowd], ...] = (
    Figure(
        key="cpu_us_a_token",
        name="CPU µs a token",
        of=lambda side: side.steady.cpu_s / side.steady.requests * 1e6,
        has_ratio=True,
    ),
    Figure(
        key="tokens_per_s",
        name="tokens/s",
        of=lambda side: side.steady.ok / side.steady.seconds,
        has_ratio=True,
    ),
    Figure(
        key="tokens_per_core_s",
        name="tokens/s a core",
        of=lambda side: side.steady.ok / side.steady.cpu_s if side.steady.cpu_s else None,
        has_ratio=True,
    ),
    Figure(key="p50_ms", name="answer p50 ms", of=lambda side: side.steady.p50_ms, form=".1f"),
    Figure(key="p99_ms", name="answer p99 ms", of=lambda side: side.steady.p99_ms, form=".1f"),
    Figure(
        key="memory_grown_mib",
        name="memory MiB, second half",
        of=lambda side: _grown(side.steady),
        form=".1f",
    ),
    Figure(key="at_once_ok", name="at once: tokens", of=_at_once(lambda asked: asked.ok)),
    Figure(key="at_once_limited", name="at once: told to wait", of=_at_once(lambda asked: asked.limited)),
    Figure(key="at_once_refused", name="at once: refused", of=_at_once(lambda asked: asked.refused)),
    Figure(key="at_once_unanswered", name="at once: unanswered", of=_at_once(lambda asked: asked.unanswered)),
    Figure(
        key="at_once_s",
        name="at once: all answered after s",
        of=_at_once(lambda asked: asked.seconds),
        form=".1f",
    ),
    Figure(
        key="at_once_memory_mib",
        name="at once: memory MiB, second half",
        of=_at_once(_grown),
        form=".1f",
    ),
)


def issue_report(options: IssueOptions, runs: Sequence[Run[Crowd]]) -> Report:
    """Put the figures together."""
    at_once = f", then {options.at_once:,} at once" if options.at_once else ""
    notes = []
    for side, crowds in (
        ("relay", [run.relay for run in runs]),
        ("yardstick", [run.yardstick for run in runs]),
    ):
        notes += busy_note(
            side, [one.steady.own_cpu_s / one.steady.seconds for one in crowds], who="The askers"
        )
        if lost := max(map(_lost, crowds)):
            notes.append(
                f"The {side} left up to {lost:,} requests in a run without a token or a time to wait."
            )
    return make_report(
        "issue",
        FIGURES,
        runs,
        headline=f"issue: {options.requests:,} token requests, {options.parallel} at a time{at_once}, "
        f"medians of {options.runs}",
        yardstick="empty route",
        yardstick_is="a Starlette route that does nothing, on uvicorn with the relay's settings",
        options={
            "requests": options.requests,
            "parallel": options.parallel,
            "at_once": options.at_once,
        },
        notes=notes,
        is_whole=all(_lost(run.relay) == 0 for run in runs),
        charted=("cpu_us_a_token",),
        all_of=_all_of,
    )


def _lost(side: Crowd) -> int:
    both = [side.steady] if side.at_once is None else [side.steady, side.at_once]
    return sum(asked.refused + asked.unanswered for asked in both)


def _all_of(side: Crowd) -> Mapping[str, Any]:
    return {"steady": msgspec.to_builtins(side.steady), "at_once": msgspec.to_builtins(side.at_once)}
