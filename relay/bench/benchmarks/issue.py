"""`relay bench issue`: what a token costs, and whether all requests are answered that come at once."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from relay.bench.benchmarks.benchmark import Benchmark, Parallel, Show, SideName, option
from relay.bench.load.clients import TOKEN_PATH
from relay.bench.load.processes import STALL_S, Child
from relay.bench.load.requester import Answered, Order
from relay.bench.load.servers import own_relay
from relay.bench.report import Figure, busy_note

BASE_S, EACH_S = 30.0, 0.02
"""Bound for all answers: a token takes a millisecond where nothing else runs."""
MAX_REQUESTS = 200_000
"""Each has a session of its own, which is signed beforehand."""
MAX_AT_ONCE = 20_000
"""One address has about 28,000 ports to connect from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """One side of one run: the requests one after the other, and those at once, if there are any."""

    steady: Answered
    at_once: Answered | None


@dataclass(frozen=True, kw_only=True)
class Issue(Benchmark[Crowd]):
    """Token requests: what does one cost, and is a crowd that asks at once answered?

    Each request is another session's. Of those that come at once every one
    must be answered, and get its token after the times that it was told to
    wait; exit code 1 if not.
    """

    NAME = "issue"
    YARDSTICK = ("empty route", "a Starlette route that does nothing, on uvicorn with the relay's settings")
    QUICK = {"requests": 2000, "at_once": 2000}

    requests: Annotated[int, option("Tokens to ask for.", 1, MAX_REQUESTS)] = 10_000
    parallel: Parallel = 50
    at_once: Annotated[int, option("Then so many at once; 0: none.", 0, MAX_AT_ONCE)] = 15_000

    def headline(self) -> str:
        at_once = f", then {self.at_once:,} at once" if self.at_once else ""
        return f"{self.requests:,} token requests, {self.parallel} at a time{at_once}"

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Crowd:
        total = self.requests + self.at_once
        with _issuer(total, folder) if name == "relay" else empty_route(folder) as order:
            steady = send(
                order,
                folder,
                self.requests,
                lambda done: show(done, total, "requests"),
                parallel=self.parallel,
            )
            if not self.at_once:
                return Crowd(steady=steady, at_once=None)
            crowd = send(
                order,
                folder,
                self.at_once,
                lambda done: show(self.requests + done, total, "requests"),
                parallel=self.at_once,
                bearers=order.bearers[self.requests :],
                returns=True,
            )
            return Crowd(steady=steady, at_once=crowd)

    def figures(self) -> Sequence[Figure[Crowd]]:
        return [
            Figure("cpu_us_a_token", "CPU µs a token", "steady.cpu_us_a_request", has_ratio=True, at_most=5),
            Figure("tokens_per_s", "tokens/s", "steady.ok_per_s", has_ratio=True),
            Figure("at_once_ok", "at once: tokens", "at_once.ok"),
            Figure("at_once_limited", "at once: told to wait", "at_once.limited"),
            Figure("at_once_refused", "at once: refused", "at_once.refused"),
            Figure("at_once_unanswered", "at once: unanswered", "at_once.unanswered"),
            Figure("at_once_slowest_s", "at once: slowest answer after s", "at_once.slowest_s", ".1f"),
            Figure("at_once_s", "at once: all served after s", "at_once.seconds", ".1f"),
        ]

    def is_whole(self, relay: Crowd) -> bool:
        loads = [one for one in (relay.steady, relay.at_once) if one is not None]
        return not any(one.refused or one.unanswered for one in loads)

    def side_notes(self, name: SideName, sides: Sequence[Crowd]) -> list[str]:
        cores = [one.steady.load_cores for one in sides]
        return busy_note(name, cores, program="The program that asks")


@contextlib.contextmanager
def _issuer(sessions: int, folder: Path) -> Iterator[Order]:
    # one token a session, so that no limit is measured
    with own_relay(folder, sessions=sessions) as running:
        yield Order(
            url=running.target.issuer, path=TOKEN_PATH, bearers=running.target.sessions, pid=running.pid
        )


@contextlib.contextmanager
def empty_route(folder: Path) -> Iterator[Order]:
    """Serve a route that does nothing; yields an order without requests for it."""
    with Child.run("The yardstick", folder, "relay.bench.load.plain_http", "nothing") as child:
        port = child.hear(within_s=STALL_S)["port"]
        yield Order(url=f"http://127.0.0.1:{port}", path="/", pid=child.pid)


def send(order: Order, folder: Path, count: int, show: Callable[[int], None], **changes: Any) -> Answered:
    """Send `count` requests with these changes of the order, and return their answers."""
    show(0)
    order = msgspec.structs.replace(order, requests=count, **changes)
    with Child.run("The program that asks", folder, "relay.bench.load.requester", order=order) as child:
        within_s = BASE_S + EACH_S * count + (count / order.rate if order.rate else 0.0)
        return child.result(Answered, within_s=within_s, show=show)
