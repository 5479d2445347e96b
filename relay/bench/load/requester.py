"""POST requests, many at once, as a program: `python -m relay.bench.load.requester`.

Each of `parallel` connections sends its next request when the one before is answered. With as many connections as there
are requests, all are sent at once.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from relay.bench.load.clients import KeptLink, post_request, run_clients
from relay.bench.load.orders import carry_out
from relay.bench.load.processes import STALL_S, cpu_of


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`requests` POSTs of `body`, each with the next one of `bearers`; `pid` is the server's process.

    `returns`: a client that is told to wait comes back after that time, until it has its answer.
    """

    url: str
    path: str
    pid: int
    bearers: Sequence[str] = ()
    requests: int = 0
    parallel: int = 1
    body: str = ""
    returns: bool = False


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answers.

    `limited` are 429 and 503 with a Retry-After, `refused` all other answers but 200. `unanswered` got none: the server
    closed the connection, or was silent for ten seconds. `slowest_s` is the longest time until an answer, with the time
    to connect. CPU is the server's, except `load_cores`, this process's own.
    """

    requests: int
    ok: int
    limited: int
    refused: int
    unanswered: int
    slowest_s: float
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
    slowest_s = 0.0

    async def ask(link: KeptLink, number: int) -> float:
        """Send a request. Return how long to wait before the next try, 0.0 for none."""
        nonlocal slowest_s
        bearer = bearers[number % len(bearers)]
        began = time.monotonic()
        answer = await link.call(post_request(order.url, order.path, order.body.encode(), bearer=bearer))
        slowest_s = max(slowest_s, time.monotonic() - began)
        # a client can't obey an answer that names no time
        wait_s = answer.retry_after_s if answer.status in (429, 503) else 0.0
        kinds["ok" if answer.status == 200 else "limited" if wait_s else "refused"] += 1
        return wait_s

    async def client() -> None:
        # after an OSError, when the server refused or closed the connection, the request has no answer
        with contextlib.suppress(OSError), contextlib.closing(KeptLink(order.url)) as link:
            for number in left:
                while (wait_s := await ask(link, number)) and order.returns:
                    link.close()
                    await asyncio.sleep(wait_s)

    cpu, own_cpu, started = cpu_of(order.pid), time.process_time(), time.monotonic()
    with contextlib.suppress(TimeoutError):
        clients = [client() for _ in range(min(order.parallel, order.requests))]
        await run_clients(clients, kinds.total, stall_s=STALL_S, tells=True)
    seconds = time.monotonic() - started
    return Answered(
        requests=order.requests,
        ok=kinds["ok"],
        limited=kinds["limited"],
        refused=kinds["refused"],
        unanswered=order.requests - kinds.total() + (kinds["limited"] if order.returns else 0),
        slowest_s=slowest_s,
        seconds=seconds,
        ok_per_s=kinds["ok"] / seconds,
        cpu_us_a_request=(cpu_of(order.pid) - cpu) / order.requests * 1e6,
        load_cores=(time.process_time() - own_cpu) / seconds,
    )


if __name__ == "__main__":
    carry_out(Order, send_all)
