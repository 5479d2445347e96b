"""Requests, many at once or at a steady rate, as a program: `python -m relay.bench.load.requester`.

Each of `parallel` connections sends its next request when the one before is answered. With as many connections as there
are requests, all are sent at once. At a steady rate latency is counted from the time at which a request was due.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from relay.bench.load.clients import KeptLink, post_request, run_clients
from relay.bench.load.orders import carry_out
from relay.bench.load.processes import STALL_S, cpu_of
from relay.bench.load.subscribers import quantile


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`requests` POSTs of `body`, each with the next one of `bearers`; `pid` is the server's process.

    `returns`: a client that is told to wait comes back after that time, until it has its answer. With `cookies` they
    are a browser's GETs, each with the next cookie. `rate` is how many a second, 0: as fast as they are answered.
    """

    url: str
    path: str
    pid: int
    bearers: Sequence[str] = ()
    requests: int = 0
    parallel: int = 1
    body: str = ""
    returns: bool = False
    cookies: Sequence[str] = ()
    rate: float = 0.0


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answers.

    `limited` are 429 and 503 with a Retry-After, `refused` all other answers but 200. `unanswered` got none: the server
    closed the connection, or was silent for ten seconds. Times are those until an answer, with the time to connect;
    `slowest_s` is the longest. CPU is the server's, except `load_cores`, this process's own.
    """

    requests: int
    ok: int
    limited: int
    refused: int
    unanswered: int
    slowest_s: float
    p50_ms: float | None
    p99_ms: float | None
    seconds: float
    ok_per_s: float
    cpu_us_a_request: float
    load_cores: float


async def send_all(order: Order) -> Answered:
    """Send requests until each has an answer or will get none. Raises BenchError if the server's CPU can't be read
    any more.
    """
    left = iter(range(order.requests))
    kinds: Counter[str] = Counter()
    took: list[float] = []

    async def ask(link: KeptLink, number: int) -> float:
        """Send a request. Return how long to wait before the next try, 0.0 for none."""
        began = time.monotonic()
        if order.rate:
            began, now = started + number / order.rate, began
            await asyncio.sleep(max(0.0, began - now))
        answer = await link.call(_request(order, number))
        took.append(time.monotonic() - began)
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
    took.sort()
    return Answered(
        requests=order.requests,
        ok=kinds["ok"],
        limited=kinds["limited"],
        refused=kinds["refused"],
        unanswered=order.requests - kinds.total() + (kinds["limited"] if order.returns else 0),
        slowest_s=took[-1] if took else 0.0,
        p50_ms=quantile(took, 0.5, unit=1e-3),
        p99_ms=quantile(took, 0.99, unit=1e-3),
        seconds=seconds,
        ok_per_s=kinds["ok"] / seconds,
        cpu_us_a_request=(cpu_of(order.pid) - cpu) / order.requests * 1e6,
        load_cores=(time.process_time() - own_cpu) / seconds,
    )


def _request(order: Order, number: int) -> bytes:
    """Return the request of this number."""
    if order.cookies:
        cookie = order.cookies[number % len(order.cookies)]
        return (
            f"GET {order.path} HTTP/1.1\r\nHost: {urlsplit(order.url).netloc}\r\nCookie: {cookie}\r\n"
            "Accept: application/json\r\nAccept-Language: en\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
            "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\r\n"
        ).encode()
    bearer = order.bearers[number % len(order.bearers)] if order.bearers else ""
    return post_request(order.url, order.path, order.body.encode(), bearer=bearer)


if __name__ == "__main__":
    carry_out(Order, send_all)
