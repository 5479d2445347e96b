"""A newcomer as a browser is one: it takes a token, connects with it at once, and stays.

Its journey is a generator over a bare socket that waits for nothing itself. It yields the seconds that it wants to
wait, or 0 when its socket has to become ready first; so one loop can have thousands of them on their way.
"""

import errno
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Generator, Iterator

import msgspec

from relay.bench.load.http_post import CONTENT_LENGTH, RESET, split_address
from relay.bench.load.targets import Target, Token, handshake, query_of, token_request

ATTEMPTS = 8
FIRST_BACK_OFF_S = 0.5
_READ_BYTES = 65_536
_RETRY = re.compile(rb"\r\nretry-after: *(\d+)\r\n", re.IGNORECASE)
_PING = re.compile(rb"\x89([\x00-\x7d])")


class Newcomer:
    """One browser. `refusals` counts for all of them what made somebody wait or try again.

    `took_s` is None until it is in, and then the time from its beginning, waits included; `is_lost` when it has tried
    as often as it will, or was closed after it had come in.
    """

    __slots__ = (
        "_number",
        "_poll",
        "_received",
        "_refusals",
        "_socket",
        "_target",
        "is_lost",
        "steps",
        "took_s",
    )

    def __init__(self, number: int, target: Target, *, poll: select.epoll, refusals: Counter[str]) -> None:
        self._number = number
        self._target = target
        self._poll = poll
        self._refusals = refusals
        self._socket: socket.socket | None = None
        self._received = b""
        self.took_s: float | None = None
        self.is_lost = False
        self.steps = self._journey()

    def fileno(self) -> int | None:
        """Return its socket's number, None between two sockets."""
        return None if self._socket is None else self._socket.fileno()

    def hang_up(self) -> None:
        """Leave with a reset: thousands of ports in TIME_WAIT would be missing in the next run."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            opened.close()

    def _journey(self) -> Iterator[float]:
        began_at = time.monotonic()
        for _ in range(ATTEMPTS):
            try:
                wait_s = yield from self._attempt()
            except OSError as error:
                self._refusals[f"link: {error.strerror or type(error).__name__}"] += 1
                wait_s = FIRST_BACK_OFF_S
            if wait_s is None:
                self.took_s = time.monotonic() - began_at
                yield from self._stay()
                break
            self.hang_up()
            yield wait_s
        self.is_lost = True

    def _attempt(self) -> Generator[float, None, float | None]:
        """Take a token and connect. Returns None when it is in, else how long to wait before the next attempt."""
        target, token = self._target, Token()
        hand = range(len(target.channels))
        if target.issuer:
            session = target.sessions[self._number % len(target.sessions)]
            yield from self._call(target.issuer, "http", token_request(target, hand, session))
            if not self._received.startswith(b"HTTP/1.1 200"):
                return self._refused("token")
            token = msgspec.json.decode(self._received.partition(b"\r\n\r\n")[2], type=Token)
            self.hang_up()
        stream = (target.stream or token.endpoint) + query_of(target, hand)
        yield from self._call(stream, "ws", handshake(stream, token))
        if not self._received.startswith(b"HTTP/1.1 101"):
            return self._refused("handshake")
        while target.channels and b'"type":"subscribed"' not in self._received:
            yield 0
            self._receive()
        return None

    def _call(self, url: str, scheme: str, request: bytes) -> Iterator[float]:
        """Connect, send a request and receive its answer's head, and its body where a length is told."""
        self._socket = opened = socket.socket()
        opened.setblocking(False)
        opened.connect_ex(split_address(url, scheme))  # how it ends is told by the first send
        self._poll.register(opened.fileno(), select.EPOLLOUT)
        yield 0
        opened.sendall(request)  # it fits into any socket's buffer
        self._poll.modify(opened.fileno(), select.EPOLLIN)
        self._received = b""
        while True:
            yield 0
            self._receive()
            end = self._received.find(b"\r\n\r\n")
            length = CONTENT_LENGTH.search(self._received, 0, end + 2) if end >= 0 else None
            if end >= 0 and len(self._received) >= end + 4 + (int(length[1]) if length else 0):
                return

    def _receive(self) -> None:
        assert self._socket is not None
        chunk = self._socket.recv(_READ_BYTES)
        if not chunk:
            raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
        self._received += chunk

    def _refused(self, what: str) -> float:
        self._refusals[f"{what}: {self._received[9:12].decode('latin-1')}"] += 1
        told = _RETRY.search(self._received)
        return float(told[1]) or FIRST_BACK_OFF_S if told else FIRST_BACK_OFF_S

    def _stay(self) -> Iterator[float]:
        """Answer pings, as every browser does, until the connection ends."""
        assert self._socket is not None
        try:
            while True:
                self._received = b""
                yield 0
                self._receive()
                for ping in _PING.finditer(self._received):
                    payload = self._received[ping.end() : ping.end() + ping[1][0]]
                    self._socket.sendall(b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload)
        except OSError:
            self.hang_up()
