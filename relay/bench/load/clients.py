"""Clients of the relay: they take scoped tokens and open WebSocket connections, many at the same time.

Requests are written by hand because their cost counts: a client library takes longer for a request than the relay does,
and some send header and body in two writes. For the same reason nothing of an open connection is parsed.
"""

import asyncio
import base64
import contextlib
import os
import re
import secrets
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from relay.bench import BenchError
from relay.bench.load.orders import TELL_EVERY_S, say

Value = TypeVar("Value")

TOKEN_PATH = "/auth/ws-token"  # noqa: S105  # no password
MAX_NAMED = 32
"""Channels that one token may name. A token for more is for all that is granted, and the URL names the channels."""
OPEN_WITHIN_S = 10.0
"""Seconds without any new connection after which the opening is given up."""
PARALLEL = 8
IDLE_S = 3.0
"""Servers close connections that were idle for 5 s or more: a request must not cross with that."""
BUSY_ATTEMPTS = 10
BUSY_PAUSE_S = 1.0
"""An issuer answers 503 while another program holds up its disk. Nothing is measured yet, so that the load can wait."""
_READ_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time. Thousands of ports in TIME_WAIT would be missing in the next run."""
_BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux: the port is chosen when the other side is known."""
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the load connects.

    `stream` is a ws:// address with its path. `issuer` gives a token for each connection to `endpoint`, for one of
    `sessions` in turn; "": no token is needed. `channels` are all channels to subscribe to at `interval_ms`, of which
    each connection has a hand; without any there is no acknowledgement. `events`: event streams. `compress`: batches.
    `source` is the address to connect from, "" for the system's choice: one address has 28,000 ports.
    """

    stream: str
    issuer: str = ""
    endpoint: str = ""
    sessions: Sequence[str] = ()
    channels: Sequence[str] = ()
    interval_ms: int = 0
    events: bool = False
    compress: bool = False
    source: str = ""


class Token(msgspec.Struct, frozen=True):
    """A scoped token as the issuer gives it; "" where there is no issuer."""

    wsToken: str = ""  # noqa: N815  # the wire's name

    def __repr__(self) -> str:
        """Leave the token out."""
        return "Token()"


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer. `head` is everything before the empty line."""

    status: int
    head: bytes
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """What the server said in Retry-After, 0.0 if it said nothing."""
        found = re.search(rb"\r\nretry-after: *(\d+)", self.head, re.IGNORECASE)
        return float(found[1]) if found else 0.0

    def explain(self) -> str:
        """Return status, code and message of a refusal as text."""
        try:
            problem = msgspec.json.decode(self.body, type=_Problem)
        except msgspec.DecodeError:
            problem = _Problem()
        return " ".join(part for part in (str(self.status), problem.code, problem.message) if part)


class Refused(BenchError):  # noqa: N818  # an answer of the server, which some clients expect
    """The server refused a request. `what` is "token", "handshake" or "subscription"; the last one has no `answer`."""

    def __init__(self, sentence: str, *, what: str, answer: Answer | None = None) -> None:
        super().__init__(sentence)
        self.what = what
        self.status = answer.status if answer else 0
        self.retry_after_s = answer.retry_after_s if answer else 0.0


class Link:
    """One client connection; all errors of its socket are OSErrors. `received` is what came after the last answer."""

    def __init__(self, url: str, *, receive_bytes: int = 0, source: str = "") -> None:
        self.url = url
        self.received = b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_bytes:  # before the connection is made: the window is agreed on then
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source:
            self.socket.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            self.socket.bind((source, 0))

    @classmethod
    async def open(cls, url: str, *, receive_bytes: int = 0, source: str = "") -> Self:
        """Connect to the host and port of a URL. `receive_bytes` is the kernel's receive buffer, 0: its own choice."""
        link, parts = cls(url, receive_bytes=receive_bytes, source=source), urlsplit(url)
        try:
            await asyncio.get_running_loop().sock_connect(link.socket, (parts.hostname, parts.port))
        except BaseException:
            link.close()
            raise
        return link

    async def call(self, request: bytes) -> Answer:
        """Send a request and receive its answer, with its body if a length is told."""
        await asyncio.get_running_loop().sock_sendall(self.socket, request)
        self.received = b""
        while (answer := self._answer()) is None:
            await self.receive()
        return answer

    async def receive(self) -> None:
        """Read what comes to the end of `received`; raises ConnectionResetError at the end of the connection."""
        chunk = await asyncio.get_running_loop().sock_recv(self.socket, _READ_BYTES)
        if not chunk:
            raise ConnectionResetError("closed by the server")
        self.received += chunk

    def close(self) -> None:
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


class KeptLink:
    """A connection to an HTTP server that is kept alive; one that was idle for too long is opened again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._link: Link | None = None
        self._used_at = 0.0

    async def call(self, request: bytes) -> Answer:
        """Send a request and receive its answer; raises OSError, also if the server is not there."""
        if self._link is None or time.monotonic() - self._used_at > IDLE_S:
            self.close()
            self._link = await Link.open(self.url)
        answer = await self._link.call(request)
        self._used_at = time.monotonic()
        return answer

    def close(self) -> None:
        """Close the connection. The next call opens another one."""
        if self._link is not None:
            self._link.close()
            self._link = None


async def run_clients(
    clients: Iterable[Coroutine[Any, Any, None]],
    done: Callable[[], int],
    *,
    stall_s: float,
    tells: bool = False,
) -> None:
    """Run clients until all have ended. `done` counts what they have done, which is reported if the program `tells`.

    Raises TimeoutError if that number did not grow for `stall_s`, and the error of the first client that fails.
    """
    tasks = [asyncio.ensure_future(client) for client in clients]
    ending = asyncio.gather(*tasks)
    counted, grown_at = 0, time.monotonic()
    try:
        while not (await asyncio.wait([ending], timeout=TELL_EVERY_S))[0]:
            if tells:
                say(progress=done())
            if done() > counted:
                counted, grown_at = done(), time.monotonic()
            elif time.monotonic() - grown_at > stall_s:
                raise TimeoutError
        await ending
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def take_token(
    link: Link | KeptLink, target: Target, hand: Sequence[int], number: int, *, attempts: int = 1
) -> Token:
    """Take a token for a hand of channels (none: for all that is granted), with the session of this number. Raises
    Refused if the issuer gives none; BenchError if the server is no issuer.
    """
    asked: dict[str, object] = {"endpoint": target.endpoint} if target.endpoint else {}
    if 0 < len(hand) <= MAX_NAMED:
        asked["channels"] = [target.channels[place] for place in hand]
    session = target.sessions[number % len(target.sessions)]
    request = post_request(target.issuer, TOKEN_PATH, msgspec.json.encode(asked), bearer=session)
    answer = await link.call(request)
    for _ in range(attempts - 1):
        if answer.status != 503:
            break
        await asyncio.sleep(BUSY_PAUSE_S)
        answer = await link.call(request)
    if answer.status != 200:
        raise Refused(f"The issuer gave no token: {answer.explain()}", what="token", answer=answer)
    try:
        return msgspec.json.decode(answer.body, type=Token)
    except msgspec.DecodeError:
        raise BenchError(f"What answers at {target.issuer} is not a relay's issuer.") from None


async def connect(target: Target, hand: Sequence[int], token: Token, *, receive_bytes: int = 0) -> Link:
    """Open a connection, and wait until its subscriptions are acknowledged. Raises Refused if the server refuses the
    handshake or a subscription.
    """
    link = await Link.open(target.stream, receive_bytes=receive_bytes, source=target.source)
    try:
        answer = await link.call(_handshake(target, hand, token))
        if answer.status != (200 if target.events else 101):
            status = _text(answer.head[9:].partition(b"\r\n")[0])
            sentence = f"{target.stream} refused the handshake: {status}. {_text(answer.body)}".strip()
            raise Refused(sentence, what="handshake", answer=answer)
        if target.channels:
            await _await_subscription(link)
    except BaseException:
        link.close()
        raise
    return link


async def _await_subscription(link: Link) -> None:
    while (found := re.search(rb'"type":"subscribed".*"rejected":(\[.*?\])', link.received)) is None:
        if error := re.search(rb'\{"type":"error".*?\}', link.received):
            raise Refused(f"The relay answered with an error: {_text(error[0])}", what="subscription")
        if len(link.received) > _READ_BYTES:
            raise BenchError(f"{link.url} acknowledges no subscription.")
        try:
            await link.receive()
        except ConnectionResetError:
            reason = close_reason(link.received)
            sentence = f"The relay closed a connection that was just opened. {reason}".strip()
            raise Refused(sentence, what="subscription") from None
    if found[1] != b"[]":
        raise Refused(f"The relay refused the subscription: {_text(found[1])}", what="subscription")


async def take_all(
    target: Target, hands: Sequence[Sequence[int]], *, parallel: int = PARALLEL, first: int = 0
) -> list[Token]:
    """Take a token for each hand and connect nowhere; `first` is the number of the first session. Raises BenchError
    with the reason of the first failure.
    """

    async def take(issuer: KeptLink, number: int) -> Token:
        return await take_token(issuer, target, hands[number], first + number, attempts=BUSY_ATTEMPTS)

    return await _for_each(target, len(hands), parallel, take)


async def open_all(
    target: Target,
    hands: Sequence[Sequence[int]],
    *,
    parallel: int = PARALLEL,
    tokens: Sequence[Token] | None = None,
    receive_bytes: int = 0,
) -> list[Link]:
    """Open a connection for each hand, which has the places of its channels; each is subscribed and acknowledged.

    `tokens` are those of `take_all` for the same hands; without them each token is taken just before it is used,
    because it lives for 30 seconds. Raises BenchError with the reason of the first failure; all
    connections are closed then.
    """

    async def open_one(issuer: KeptLink, number: int) -> Link:
        token = tokens[number] if tokens else Token()
        if target.issuer and not tokens:
            token = await take_token(issuer, target, hands[number], number, attempts=BUSY_ATTEMPTS)
        return await connect(target, hands[number], token, receive_bytes=receive_bytes)

    return await _for_each(target, len(hands), parallel, open_one)


async def _for_each(
    target: Target, count: int, parallel: int, step: Callable[[KeptLink, int], Awaitable[Value]]
) -> list[Value]:
    found: dict[int, Value] = {}
    numbers = iter(range(count))

    async def worker() -> None:
        with contextlib.closing(KeptLink(target.issuer)) as issuer:
            for number in numbers:
                try:
                    found[number] = await step(issuer, number)
                except OSError as error:
                    where = f"{target.stream} can't be reached: {reason(error)}"
                    raise BenchError(f"{where} (connection {number + 1} of this run).") from None

    workers = [worker() for _ in range(min(parallel, count))]
    try:
        await run_clients(workers, lambda: len(found), stall_s=OPEN_WITHIN_S)
    except BaseException as error:
        for one in found.values():
            if isinstance(one, Link):
                one.close()
        if isinstance(error, TimeoutError):
            raise BenchError(f"{target.stream} did not answer for {OPEN_WITHIN_S:.0f} s.") from None
        raise
    return [found[number] for number in range(count)]


def post_request(
    url: str, path: str, body: bytes, *, bearer: str = "", content_type: str = "application/json"
) -> bytes:
    """Return a POST request."""
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n{authorization}"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _handshake(target: Target, hand: Sequence[int], token: Token) -> bytes:
    """Return the request for a WebSocket or an event stream. Its query has only what the token does not say already."""
    parts = urlsplit(target.stream)
    fields = []
    if target.channels and (not target.issuer or len(hand) > MAX_NAMED):
        fields.append("channels=" + quote(",".join(target.channels[place] for place in hand), safe=",^/:~+"))
    if target.interval_ms:
        fields.append(f"interval_ms={target.interval_ms}")
    if target.compress:
        fields.append("compress=1")
    path = parts.path + (f"?{'&'.join(fields)}" if fields else "")
    if target.events:
        return (
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer {token.wsToken}\r\n\r\n"
        ).encode()
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    protocols = f"Sec-WebSocket-Protocol: relay.v1, bearer.{token.wsToken}\r\n" if token.wsToken else ""
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if target.compress else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{protocols}{offer}\r\n"
    ).encode()


def close_reason(received: bytes | bytearray) -> str:
    """Return the close code and reason if `received` ends with a close frame, else "" (RFC 6455 §5.5.1)."""
    found = re.search(rb"\x88[\x02-\x7d]([\x00-\xff]{2})([ -~]*)$", received)
    return f"Its close code: {int.from_bytes(found[1])} {_text(found[2])}".strip() if found else ""


def reason(error: OSError) -> str:
    """Return what an error of a socket says, without the address that the event loop adds."""
    return os.strerror(error.errno) if error.errno else str(error)


def _text(data: bytes | bytearray) -> str:
    """Return bytes from a server as one line that a terminal can show."""
    text = data[:300].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in text).strip()
