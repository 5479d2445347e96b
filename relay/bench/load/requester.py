"""POST requests, many at once, as a program: `python -m relay.bench.load.requester`.

Each of `parallel` connections sends its next request when the one before is answered. With as many connections as there
are requests, all are sent at once.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from relay.bench.load.clients import Link, post_request, run_clients
from relay.bench.load.orders import carry_out
from relay.bench.load.processes import STALL_S, cpu_of


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`requests` POSTs of `body`, each with the next one of `bearers`; `pid` is the server's process."""

    url: str
    path: str
    pid: int
    bearers: Sequence[str] = ()
    requests: int = 0
    parallel: int = 1
    body: str = ""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answers.

    `limited` are 429 with a Retry-After, `refused` all other answers but 200. `unanswered` got none: the server closed
    the connection, or was silent for ten seconds. CPU is the server's, except `load_cores`, this process's own.
    """

    requests: int
    ok: int
    limited: int
    refused: int
    unanswered: int
    seconds: float
    ok_per_s: float
    cpu_us_a_request: float
    load_cores: float


async def send_all(order: Order) -> Answered:
    """Send requests until each has an answer or will get none. Raises BenchError if the server's CPU can't be read
    any more.
    """
    bearers = order.bearers or [""]
    left = iter(range(order.requests))
    kinds: Counter[str] = Counter()

    async def connection() -> None:
        # after an OSError, when the server refused or closed the connection, the last request has no answer
        with contextlib.suppress(OSError), contextlib.closing(await Link.open(order.url)) as link:
            for number in left:
                bearer = bearers[number % len(bearers)]
                request = post_request(order.url, order.path, order.body.encode(), bearer=bearer)
                answer = await link.call(request)
                # a client can't obey a 429 that names no time
                is_limited = answer.status == 429 and answer.retry_after_s
                kinds["ok" if answer.status == 200 else "limited" if is_limited else "refused"] += 1

    cpu, own_cpu, started = cpu_of(order.pid), time.process_time(), time.monotonic()
    with contextlib.suppress(TimeoutError):
        connections = [connection() for _ in range(min(order.parallel, order.requests))]
        await run_clients(connections, kinds.total, stall_s=STALL_S, tells=True)
    seconds = time.monotonic() - started
    return Answered(
        requests=order.requests,
        ok=kinds["ok"],
        limited=kinds["limited"],
        refused=kinds["refused"],
        unanswered=order.requests - kinds.total(),
        seconds=seconds,
        ok_per_s=kinds["ok"] / seconds,
        cpu_us_a_request=(cpu_of(order.pid) - cpu) / order.requests * 1e6,
        load_cores=(time.process_time() - own_cpu) / seconds,
    )


if __name__ == "__main__":
    carry_out(Order, send_all)
