"""POST requests over one kept-alive connection, written by hand because their cost counts.

A client library takes longer for a request than the relay does, and some send header and body in two writes,
which the server then reads twice.
"""

import re
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from relay.bench import BenchError
from relay.core.errors import ConfigurationError

ANSWER_WITHIN_S = 10.0
IDLE_S = 3.0
"""Servers close connections that were idle for 5 s or more: don't send on one that may be closing."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time. Thousands of ports in TIME_WAIT would be missing in the next run."""
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes

    def explain(self) -> str:
        """Return status, code and message of a refusal as text."""
        try:
            problem = msgspec.json.decode(self.body, type=_Problem)
        except msgspec.DecodeError:
            problem = _Problem()
        return " ".join(part for part in (str(self.status), problem.code, problem.message) if part)


def split_address(url: str, scheme: str) -> tuple[str, int]:
    """Return host and port of a URL.

    Raises:
        ConfigurationError: if it is of another scheme, or names no host.
    """
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


class Poster:
    """One connection to an HTTP server, opened when it is needed. Not thread-safe."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._address = split_address(url, "http")
        self._host = urlsplit(url).netloc
        self._socket: socket.socket | None = None
        self._used_at = 0.0
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._received.clear()

    def post(self, path: str, body: bytes, *, bearer: str, content_type: str = "application/json") -> Answer:
        """Send one body and return the answer.

        Raises:
            BenchError: if the server can't be reached or does not answer in time.
        """
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {bearer}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            connection = self._connected()
            connection.sendall(head.encode() + body)
            answer = self._answer(connection)
        except TimeoutError:
            self.close()
            raise BenchError(f"{self._url}{path} did not answer for {ANSWER_WITHIN_S:.0f} s.") from None
        except OSError as error:
            self.close()
            raise BenchError(f"{self._url} can't be reached: {error.strerror or error}.") from None
        self._used_at = time.monotonic()
        return answer

    def _connected(self) -> socket.socket:
        if self._socket is not None and time.monotonic() - self._used_at > IDLE_S:
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=ANSWER_WITHIN_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _answer(self, connection: socket.socket) -> Answer:
        received = self._received
        while (end := received.find(b"\r\n\r\n")) < 0:
            self._receive(connection)
        length = CONTENT_LENGTH.search(received, 0, end + 2)
        if not received.startswith(b"HTTP/1.") or length is None:
            raise BenchError(f"What answers at {self._url} is not a relay.")
        whole = end + 4 + int(length[1])
        while len(received) < whole:
            self._receive(connection)
        answer = Answer(status=int(received[9:12]), body=bytes(received[end + 4 : whole]))
        del received[:whole]
        return answer

    def _receive(self, connection: socket.socket) -> None:
        chunk = connection.recv(65_536)
        if not chunk:
            raise BenchError(f"{self._url} closed the connection before it had answered.")
        self._received += chunk
