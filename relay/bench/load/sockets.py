"""Many client connections in one thread: non-blocking sockets, and generators that yield what they wait for.

A client is a generator (`Steps`). It yields a `Link` when that socket must be ready first, or the seconds that it wants
to wait. One `Loop` runs thousands of them. Requests are written by hand because their cost counts: a client library
takes longer for a request than the relay does, and some send header and body in two writes, which the server then
reads twice.
"""

import contextlib
import errno
import heapq
import itertools
import re
import select
import socket
import struct
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from relay.bench import BenchError
from relay.core.errors import ConfigurationError

Value = TypeVar("Value")
Steps = Generator["Link | float", None, Value]

TURN_S = 0.1
_READ_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time. Thousands of ports in TIME_WAIT would be missing in the next run."""
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer. `head` is everything before the empty line."""

    status: int
    head: bytes
    body: bytes

    def explain(self) -> str:
        """Return status, code and message of a refusal as text."""
        try:
            problem = msgspec.json.decode(self.body, type=_Problem)
        except msgspec.DecodeError:
            problem = _Problem()
        return " ".join(part for part in (str(self.status), problem.code, problem.message) if part)


def split_address(url: str, scheme: str) -> tuple[str, int]:
    """Return host and port of a URL. Raises ConfigurationError if it has another scheme, or no host."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme != scheme or not parts.hostname or port == 0:
        raise ConfigurationError(
            f"{url!r} is not of the form {scheme}://HOST:PORT. TLS is not measured here: "
            "name the relay's own listener, not the proxy before it."
        )
    return parts.hostname, port or 80


class Link:
    """One client connection; all errors of its socket are OSErrors.

    `received` is what came after the last answer, `events` what a client waits for that yields it. `receive_bytes` is
    the size of the kernel's receive buffer, 0: the kernel's choice.
    """

    def __init__(self, url: str, scheme: str, *, receive_bytes: int = 0) -> None:
        self.url = url
        self.received = b""
        self.used_at = time.monotonic()
        self.events = select.EPOLLOUT
        self.is_registered = False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_bytes:  # before the connection is made: the window is agreed on then
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect_ex(split_address(url, scheme))  # the first send raises its error

    def call(self, request: bytes) -> Steps[Answer]:
        """Send a request and receive its answer, with its body if a length is told."""
        left = memoryview(request)
        while left:
            if self.events == select.EPOLLOUT:
                yield self
            with contextlib.suppress(BlockingIOError):
                left = left[self.socket.send(left) :]
            self.events = select.EPOLLOUT if left else select.EPOLLIN
        self.received = b""
        while (answer := self._answer()) is None:
            yield self
            self.receive()
        self.used_at = time.monotonic()
        return answer

    def receive(self) -> None:
        """Read what is there to the end of `received`; raises ConnectionResetError at the end of the connection."""
        chunk = self.socket.recv(_READ_BYTES)
        if not chunk:
            raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
        self.received += chunk

    def reset(self) -> None:
        """Close the connection with a reset."""
        if self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.socket.close()

    def _answer(self) -> Answer | None:
        received = self.received
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        if not received.startswith(b"HTTP/1.") or not received[9:12].isdigit():
            raise BenchError(f"What answers at {self.url} is not a relay.")
        length = _CONTENT_LENGTH.search(received, 0, end + 2)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(received) < whole:
            return None
        self.received = received[whole:]
        return Answer(status=int(received[9:12]), head=received[:end], body=received[end + 4 : whole])


class Loop:
    """Runs clients until they end. `running` is how many have not ended."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self.running = 0
        self._by_socket: dict[int, Steps[None]] = {}
        self._waiting: list[tuple[float, int, Steps[None]]] = []
        self._tie_breaker = itertools.count()

    def start(self, client: Steps[None]) -> None:
        """Take the first step of a client; the next ones are taken in `turn`."""
        self.running += 1
        self._step(client)

    def turn(self) -> bool:
        """Let those clients go on that can, and wait a little for the first; tells whether there was one."""
        due = 0
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            due += 1
            self._step(heapq.heappop(self._waiting)[2])
        ready = [
            client for number, _ in self._poll.poll(TURN_S) if (client := self._by_socket.pop(number, None))
        ]
        for client in ready:
            self._step(client)
        return bool(due or ready)

    def run(self, clients: Iterable[Steps[None]], *, stall_s: float) -> None:
        """Run clients to their end. Raises TimeoutError if none of them could go on for `stall_s`."""
        for client in clients:
            self.start(client)
        moved_at = time.monotonic()
        while self.running:
            if self.turn():
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > stall_s:
                raise TimeoutError

    def complete(self, client: Steps[Value], *, stall_s: float) -> Value:
        """Run a single client to its end and return its value; raises what `run` raises."""
        while True:
            try:
                wanted = next(client)
            except StopIteration as end:
                value: Value = end.value
                return value
            assert isinstance(wanted, Link)
            self._arm(wanted)
            if not self._poll.poll(stall_s):
                raise TimeoutError

    def _step(self, client: Steps[None]) -> None:
        try:
            wanted = next(client)
        except StopIteration:
            self.running -= 1
            return
        if isinstance(wanted, Link):
            self._by_socket[wanted.socket.fileno()] = client
            self._arm(wanted)
        else:
            heapq.heappush(self._waiting, (time.monotonic() + wanted, next(self._tie_breaker), client))

    def _arm(self, link: Link) -> None:
        # for one event: nothing may come of a socket that no client waits for
        events = link.events | select.EPOLLONESHOT
        if link.is_registered:
            self._poll.modify(link.socket, events)
        else:
            link.is_registered = True
            self._poll.register(link.socket, events)
