"""POST requests, for tokens for instance, many at once, as a process: `python -m relay.bench.load.requester`.

One loop over bare sockets, because a client library takes longer for a request than the server does. Each of
`parallel` connections sends its next request when the one before is answered; with as many as there are requests,
all of them are asked at once.

    in   {"url": "http://…", "path": "/…", "sessions": […], "requests": n, "parallel": n, "pid": p, "body": "…"}
    out  {"answered": n}     now and then
    out  {"asking": {…}}     see `Asked`
"""

import select
import socket
import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from relay.bench.benchmarks.runs import STALL_S
from relay.bench.load.http_post import CONTENT_LENGTH, RESET, split_address
from relay.bench.load.orders import Gone, read_line, say
from relay.bench.load.processes import cpu_of, memory_of
from relay.bench.load.totals import quantile
from relay.core.errors import RelayError

TELL_EVERY = 500
_READ_BYTES = 65_536


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask for: `requests` POSTs of `body`, the sessions as Bearer in turn, () for none."""

    url: str
    path: str
    sessions: Sequence[str]
    requests: int
    parallel: int
    pid: int
    body: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. CPU is the server's in seconds, except `own_cpu_s`, this process's own in `seconds`.

    `limited` are 429 with a Retry-After, `refused` every other answer but 200; `unanswered` got none: the server
    closed the connection, or was silent for ten seconds. Memory in bytes, at the start, half-way and at the end.
    """

    requests: int
    ok: int
    limited: int
    refused: int
    unanswered: int
    seconds: float
    cpu_s: float
    own_cpu_s: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    memory_start: int
    memory_half: int
    memory_end: int


class Asker:
    """Asks, and counts the answers."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._address = split_address(order.url, "http")
        self._head = (
            f"POST {order.path} HTTP/1.1\r\nHost: {urlsplit(order.url).netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(order.body)}\r\n"
        )
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._asked = 0
        self._statuses: dict[int, int] = {}
        self._memory_half = 0
        self._times: list[float] = []

    def ask_all(self) -> Asked:
        """Ask until every request has an answer, or will have none.

        Raises:
            BenchError: if the server can't be measured any more.
        """
        order = self._order
        memory_start, cpu, own_cpu = memory_of(order.pid), cpu_of(order.pid), time.process_time()
        started = time.monotonic()
        for _ in range(min(order.parallel, order.requests)):
            connection = _Connection(self._address)
            self._open[connection.fileno()] = connection
            self._poll.register(connection.fileno(), select.EPOLLOUT)
        while self._open and (ready := self._poll.poll(STALL_S)):
            for number, _ in ready:
                self._go_on(self._open[number])
        statuses, times = self._statuses, sorted(self._times)
        return Asked(
            requests=order.requests,
            ok=statuses.get(200, 0),
            limited=statuses.get(429, 0),
            refused=sum(count for status, count in statuses.items() if status not in (200, 429)),
            unanswered=order.requests - len(times),
            seconds=time.monotonic() - started,
            cpu_s=cpu_of(order.pid) - cpu,
            own_cpu_s=time.process_time() - own_cpu,
            p50_ms=quantile(times, 0.5, unit=1e-3),
            p99_ms=quantile(times, 0.99, unit=1e-3),
            max_ms=quantile(times, 1.0, unit=1e-3),
            memory_start=memory_start,
            memory_half=self._memory_half,
            memory_end=memory_of(order.pid),
        )

    def _go_on(self, connection: "_Connection") -> None:
        try:
            if connection.is_new:
                connection.is_new = False
                self._poll.modify(connection.fileno(), select.EPOLLIN)
                more = self._ask(connection)
            else:
                more = not connection.read() or self._next(connection)
        except OSError:  # refused, or closed: what it asked for last has no answer
            more = False
        if not more:
            self._poll.unregister(connection.fileno())
            del self._open[connection.fileno()]
            connection.close()

    def _ask(self, connection: "_Connection") -> bool:
        """Send the next request, if there is one left."""
        place, sessions = self._asked, self._order.sessions
        if place == self._order.requests:
            return False
        self._asked += 1
        bearer = f"Authorization: Bearer {sessions[place % len(sessions)]}\r\n" if sessions else ""
        connection.ask(f"{self._head}{bearer}\r\n{self._order.body}".encode())
        return True

    def _next(self, connection: "_Connection") -> bool:
        """Count an answer, and send the next request."""
        status = connection.status
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._times.append(time.monotonic() - connection.asked_at)
        answered = len(self._times)
        if answered == self._order.requests // 2:
            self._memory_half = memory_of(self._order.pid)
        if answered % TELL_EVERY == 0:
            say(answered=answered)
        return self._ask(connection)


class _Connection:
    """One connection: a request, its answer, the next request."""

    __slots__ = ("_received", "_socket", "asked_at", "is_new", "status")

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect_ex(address)  # how it ends is told by the first send
        self._received = b""
        self.is_new = True
        self.asked_at = 0.0
        self.status = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self, request: bytes) -> None:
        self.asked_at = time.monotonic()
        self._socket.sendall(request)  # it fits into any socket's buffer

    def read(self) -> bool:
        """Read what is there; tells whether the answer is whole, whose status is then `status`."""
        chunk = self._socket.recv(_READ_BYTES)
        if not chunk:
            raise ConnectionResetError
        received = self._received = self._received + chunk
        end = received.find(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(received, 0, end + 2) if end >= 0 else None
        if length is None or len(received) < end + 4 + int(length[1]):
            return False
        # one that does not say when to come back is none that a client can obey
        told = b"\r\nretry-after: " in received[:end].lower()
        self.status = int(received[9:12])
        if self.status == 429 and not told:
            self.status = 0
        self._received = b""
        return True

    def close(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._socket.close()


def main() -> None:
    """Carry out one order."""
    try:
        say(asking=Asker(msgspec.json.decode(read_line(), type=Order)).ask_all())
    except RelayError as error:
        say(error=str(error))
    except (Gone, BrokenPipeError):
        sys.exit(0)


if __name__ == "__main__":
    main()
