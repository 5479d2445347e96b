"""`relay bench proxy`: what a call through the API proxy costs, beside a forward that checks nothing, and nginx."""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Benchmark, Seconds, Show, SideName, option
from relay.bench.benchmarks.issue import send
from relay.bench.load.plain_http import nginx_program
from relay.bench.load.processes import LOOK_S, STALL_S, Child
from relay.bench.load.requester import Answered, Order
from relay.bench.load.servers import own_relay
from relay.bench.report import Figure, busy_note

PATH = "/api/proxy/users/7?fields=name"
SESSIONS = 100
_ROUTES = """\
[bff]
backend = "http://127.0.0.1:{port}"

[bff.proxy.routes."/users"]
"""
_LIMITS = 'proxy_per_session = "1000000/minute"\nproxy_per_address = "1000000/minute"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxied:
    """One side of one run. nginx is measured on the yardstick's side, where it is installed."""

    calls: Answered
    nginx: Answered | None = None


@dataclass(frozen=True, kw_only=True)
class Proxy(Benchmark[Proxied]):
    """Calls through the API proxy: CPU and latency at a steady rate.

    Each call has a session's cookie, and goes on to a backend that answers at
    once. Beside it: a forward that checks nothing, and proxy_pass of nginx.
    """

    NAME = "proxy"
    YARDSTICK = ("plain forward", "Starlette, uvicorn and httpx, which check nothing")
    QUICK = {"seconds": 3}

    rate: Annotated[float, option("Calls a second.", 1, 10_000)] = 200
    seconds: Seconds = 20
    connections: Annotated[int, option("Connections that make them.", 1, 1000)] = 20

    def headline(self) -> str:
        return f"{self.rate:g} calls/s for {self.seconds:g} s over {self.connections} connections"

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Proxied:
        with Child.run("The backend", folder, "relay.bench.load.plain_http", "backend") as backend:
            port = backend.hear(within_s=STALL_S)["port"]
            if name == "relay":
                with own_relay(
                    folder, sessions=SESSIONS, limits=_LIMITS, sections=_ROUTES.format(port=port)
                ) as relay:
                    return Proxied(
                        calls=self._call(
                            relay.target.issuer, relay.pid, folder, show, sessions=relay.target.sessions
                        )
                    )
            with _forward("plain", port, folder) as (url, pid):
                plain = self._call(url, pid, folder, show)
            if nginx_program() is None:
                return Proxied(calls=plain)
            with _forward("nginx", port, folder) as (url, pid):
                return Proxied(calls=plain, nginx=self._call(url, pid, folder, show))

    def _call(
        self, url: str, pid: int, folder: Path, show: Show, *, sessions: Sequence[str] = ("x" * 300,)
    ) -> Answered:
        calls = max(1, round(self.rate * self.seconds))
        cookies = [f"access-token={session}" for session in sessions]
        order = Order(url=url, path=PATH, pid=pid, cookies=cookies, rate=self.rate, parallel=self.connections)
        return send(order, folder, calls, lambda done: show(done, calls, "calls"))

    def figures(self) -> Sequence[Figure[Proxied]]:
        return [
            Figure("cpu_us_a_call", "CPU µs a call", "calls.cpu_us_a_request", has_ratio=True),
            Figure("p50_ms", "p50 ms", "calls.p50_ms", ".2f", has_ratio=True),
            Figure("p99_ms", "p99 ms", "calls.p99_ms", ".2f", has_ratio=True),
            Figure("ok", "answered", "calls.ok"),
            Figure("refused", "refused", "calls.refused"),
            Figure("unanswered", "unanswered", "calls.unanswered"),
            Figure("nginx_cpu_us_a_call", "nginx: CPU µs a call", "nginx.cpu_us_a_request"),
            Figure("nginx_p50_ms", "nginx: p50 ms", "nginx.p50_ms", ".2f"),
            Figure("nginx_p99_ms", "nginx: p99 ms", "nginx.p99_ms", ".2f"),
        ]

    def is_whole(self, relay: Proxied) -> bool:
        return relay.calls.ok == relay.calls.requests

    def side_notes(self, name: SideName, sides: Sequence[Proxied]) -> list[str]:
        notes = busy_note(name, [one.calls.load_cores for one in sides], program="The program that calls")
        for what, all_calls in (
            ("The plain forward", [one.calls for one in sides]),
            ("nginx", [one.nginx for one in sides]),
        ):
            if name == "yardstick" and (failed := sum(one.requests - one.ok for one in all_calls if one)):
                notes.append(f"{what} failed {failed} calls: its figures are those of less work.")
        if name == "yardstick" and any(one.nginx is None for one in sides):
            notes.append("nginx was not measured: it is not installed.")
        return notes


@contextlib.contextmanager
def _forward(kind: str, backend: int, folder: Path) -> Iterator[tuple[str, int]]:
    """Run a forward to the backend's port; yields its URL and process when it accepts connections."""
    arguments = ("relay.bench.load.plain_http", kind)
    order = {"backend": backend, "folder": str(folder)}
    with Child.run("The yardstick", folder, *arguments, order=order) as child:
        port = child.hear(within_s=STALL_S)["port"]
        deadline = time.monotonic() + STALL_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline or child.has_spoken(within_s=LOOK_S / 10):
                    raise BenchError(f"The yardstick ({kind}) accepts no connection.") from None
        yield f"http://127.0.0.1:{port}", child.pid
