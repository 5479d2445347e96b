"""Opening the load's connections: a scoped token for each, then the WebSocket handshake, written by hand.

The tokens are real ones, taken just before they are used because they live for 30 seconds. A few threads do
it, since most of the time goes by in waiting for the server's disk. What comes out are bare sockets: from here
on nothing is parsed, so the library that reads can't be what is measured.
"""

import re
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from relay.bench import BenchError
from relay.bench.load.http_post import Poster, split_address
from relay.bench.load.targets import TOKEN_PATH, Target, Token, handshake, query_of, token_body

OPEN_WITHIN_S = 10.0
"""Seconds for one handshake and the acknowledgement behind it."""
THREADS = 8
BUSY_ATTEMPTS = 10
BUSY_PAUSE_S = 1.0
"""An issuer whose disk is held up by another program answers 503. Nothing is measured yet, so that can wait."""
_MAX_HEAD_BYTES = 65_536


class Opener:
    """Opens connections to one target. `receive_bytes` is the kernel's receive buffer, 0: what it likes.

    `seconds` is how long each took from its first packet to its acknowledgement.
    """

    def __init__(self, target: Target, *, threads: int = THREADS, receive_bytes: int = 0) -> None:
        self._target = target
        self._threads = threads
        self._receive_bytes = receive_bytes
        self.seconds: list[float] = []
        self._local = threading.local()
        self._posters: list[Poster] = []
        self._connections: list[socket.socket] = []

    def open_all(
        self, hands: Sequence[Sequence[int]], *, tokens: Sequence[Token] | None = None
    ) -> list[socket.socket]:
        """Open a connection for each hand, the places of its channels; each subscribed and acknowledged.

        `tokens` are those of `take_all` for the same hands; else each is taken directly before it is used.

        Raises:
            BenchError: with why the first one failed that did. Those that are open are closed then.
        """

        def open_one(index: int) -> socket.socket:
            token = self._token(index, hands[index]) if tokens is None else tokens[index]
            return self._open(index, hands[index], token)

        try:
            with ThreadPoolExecutor(self._threads) as threads:
                return list(threads.map(open_one, range(len(hands))))
        except BaseException:
            for connection in self._connections:
                connection.close()
            raise
        finally:
            self._close_posters()

    def take_all(self, hands: Sequence[Sequence[int]], *, first: int = 0) -> list[Token]:
        """Take a token for each hand and connect nowhere; `first` is the place of the first session to take.

        Raises:
            BenchError: with why the first one failed that did.
        """
        try:
            with ThreadPoolExecutor(self._threads) as threads:
                return list(
                    threads.map(lambda index: self._token(first + index, hands[index]), range(len(hands)))
                )
        finally:
            self._close_posters()

    def _close_posters(self) -> None:
        for poster in self._posters:
            poster.close()
        self._posters.clear()

    def _open(self, index: int, hand: Sequence[int], token: Token) -> socket.socket:
        target = self._target
        stream = (target.stream or token.endpoint) + query_of(target, hand)
        which = f"(connection {index + 1} of this run)"
        started = time.monotonic()
        try:
            connection = self._connect(split_address(stream, "ws"))
            rest = _shake_hands(connection, stream, token)
            if token.wsToken or target.channels:
                _await_subscription(connection, rest)
        except TimeoutError:
            raise BenchError(f"{target.stream} did not answer for {OPEN_WITHIN_S:.0f} s {which}.") from None
        except OSError as error:
            raise BenchError(
                f"{target.stream} can't be reached: {error.strerror or error} {which}."
            ) from None
        connection.setblocking(False)
        self.seconds.append(time.monotonic() - started)
        return connection

    def _connect(self, address: tuple[str, int]) -> socket.socket:
        connection = socket.socket()
        self._connections.append(connection)
        connection.settimeout(OPEN_WITHIN_S)
        if self._receive_bytes:  # before the connection is made: the window is agreed on then
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        connection.connect(address)
        return connection

    def _token(self, index: int, hand: Sequence[int]) -> Token:
        target = self._target
        if not target.issuer:
            return Token()
        poster: Poster | None = getattr(self._local, "poster", None)
        if poster is None:
            poster = self._local.poster = Poster(target.issuer)
            self._posters.append(poster)
        body = token_body(target, hand)
        session = target.sessions[index % len(target.sessions)]
        answer = poster.post(TOKEN_PATH, body, bearer=session)
        for _ in range(BUSY_ATTEMPTS):
            if answer.status != 503:
                break
            time.sleep(BUSY_PAUSE_S)
            answer = poster.post(TOKEN_PATH, body, bearer=session)
        if answer.status != 200:
            raise BenchError(f"The issuer gave no token: {answer.explain()}")
        try:
            return msgspec.json.decode(answer.body, type=Token)
        except msgspec.DecodeError:
            raise BenchError(f"What answers at {target.issuer} is not a relay's issuer.") from None


def _shake_hands(connection: socket.socket, stream: str, token: Token) -> bytearray:
    """Upgrade; returns what came behind the answer's header."""
    connection.sendall(handshake(stream, token))
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
