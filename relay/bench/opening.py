"""Opening the load's connections: a scoped token for each, then the WebSocket handshake, written by hand.

The tokens are real ones, taken just before they are used because they live for 30 seconds. A few threads do
it, since most of the time goes by in waiting for the server's disk. What comes out are bare sockets: from here
on nothing is parsed, so the library that reads can't be what is measured.
"""

import base64
import re
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import msgspec

from relay.bench import BenchError
from relay.bench.posting import Poster, split_address

OPEN_WITHIN_S = 10.0
"""Seconds for one handshake and the acknowledgement behind it."""
THREADS = 8
BUSY_ATTEMPTS = 10
BUSY_PAUSE_S = 1.0
"""An issuer whose disk is held up by another program answers 503. Nothing is measured yet, so that can wait."""

_MAX_HEAD_BYTES = 65_536


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the load connects.

    `stream` is a ws:// address with its path; "": the endpoint that the issuer names. `issuer` is where a
    token is taken before each connection; "": none is needed, and none of the rest is either. `sessions` are
    the session tokens to take turns with; `channel` is what each connection subscribes to.
    """

    stream: str
    issuer: str = ""
    sessions: Sequence[str] = ()
    channel: str = ""


class _TokenAnswer(msgspec.Struct):
    wsToken: str  # noqa: N815  # the wire's name
    endpoint: str


class Opener:
    """Opens connections to one target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._local = threading.local()
        self._posters: list[Poster] = []
        self._connections: list[socket.socket] = []

    def open_all(self, count: int) -> list[socket.socket]:
        """Open `count` connections, each subscribed and acknowledged.

        Raises:
            BenchError: with why the first one failed that did. Those that are open are closed then.
        """
        try:
            with ThreadPoolExecutor(THREADS) as threads:
                return list(threads.map(self._open, range(count)))
        except BaseException:
            for connection in self._connections:
                connection.close()
            raise
        finally:
            for poster in self._posters:
                poster.close()

    def _open(self, index: int) -> socket.socket:
        target = self._target
        token = self._token(target.sessions[index % len(target.sessions)]) if target.issuer else None
        stream = target.stream or (token.endpoint if token else "")
        protocols = f"Sec-WebSocket-Protocol: relay.v1, bearer.{token.wsToken}\r\n" if token else ""
        which = f"(connection {index + 1} of this run)"
        try:
            connection = socket.create_connection(split_address(stream, "ws"), timeout=OPEN_WITHIN_S)
            self._connections.append(connection)
            rest = _shake_hands(connection, stream, protocols)
            if token:
                _await_subscription(connection, rest)
        except TimeoutError:
            raise BenchError(f"{stream} did not answer for {OPEN_WITHIN_S:.0f} s {which}.") from None
        except OSError as error:
            raise BenchError(f"{stream} can't be reached: {error.strerror or error} {which}.") from None
        connection.setblocking(False)
        return connection

    def _token(self, session: str) -> _TokenAnswer:
        poster: Poster | None = getattr(self._local, "poster", None)
        if poster is None:
            poster = self._local.poster = Poster(self._target.issuer)
            self._posters.append(poster)
        body = msgspec.json.encode({"channels": [self._target.channel]})
        answer = poster.post("/auth/ws-token", body, bearer=session)
        for _ in range(BUSY_ATTEMPTS):
            if answer.status != 503:
                break
            time.sleep(BUSY_PAUSE_S)
            answer = poster.post("/auth/ws-token", body, bearer=session)
        if answer.status != 200:
            raise BenchError(f"The issuer gave no token: {answer.explain()}")
        try:
            return msgspec.json.decode(answer.body, type=_TokenAnswer)
        except msgspec.DecodeError:
            raise BenchError(f"What answers at {self._target.issuer} is not a relay's issuer.") from None


def _shake_hands(connection: socket.socket, stream: str, headers: str) -> bytearray:
    """Upgrade; returns what came behind the answer's header."""
    parts = urlsplit(stream)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
    )
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        _receive(connection, received)
    if not received.startswith(b"HTTP/1.1 101"):
        status = received[9 : received.index(b"\r\n")].decode("latin-1")
        raise BenchError(f"{stream} refused the handshake: {status}. {_text(received[end + 4 :])}".strip())
    del received[: end + 4]
    return received


def _await_subscription(connection: socket.socket, received: bytearray) -> None:
    """Wait until the relay has acknowledged the subscription."""
    while b'"type":"subscribed"' not in received:
        if error := re.search(rb'\{"type":"error".*?\}', received):
            raise BenchError(f"The relay answered with an error: {_text(error[0])}")
        _receive(connection, received)
    while (rejected := re.search(rb'"rejected":(\[.*?\])', received)) is None:
        _receive(connection, received)
    if rejected[1] != b"[]":
        raise BenchError(f"The relay refused the subscription: {_text(rejected[1])}")


def _receive(connection: socket.socket, received: bytearray) -> None:
    chunk = connection.recv(65_536)
    if not chunk or len(received) > _MAX_HEAD_BYTES:
        raise BenchError(
            f"The relay closed a connection that was just opened. {close_reason(received)}".strip()
        )
    received += chunk


def close_reason(received: bytes | bytearray) -> str:
    """Return the close code and reason if `received` ends with a close frame, else "" (RFC 6455 §5.5.1)."""
    found = re.search(rb"\x88[\x02-\x7d]([\x00-\xff]{2})([ -~]*)$", received)
    return f"Its close code: {int.from_bytes(found[1])} {_text(found[2])}".strip() if found else ""


def _text(data: bytes | bytearray) -> str:
    """Return bytes from a server as one line that a terminal can show."""
    text = data[:300].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in text).strip()
