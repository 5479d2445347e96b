"""Takes scoped tokens and opens WebSocket connections with them, a few at the same time.

What `open_all` returns are bare sockets: nothing that arrives on them is parsed, so that no library is measured.
"""

import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from relay.bench import BenchError
from relay.bench.load.sockets import Answer, Link, Loop, Steps
from relay.bench.load.targets import Target, Token, handshake, stream_url, token_request

Opened = TypeVar("Opened")

OPEN_WITHIN_S = 10.0
"""Seconds without any answer after which the opening is given up."""
PARALLEL = 8
IDLE_S = 3.0
"""Servers close connections that were idle for 5 s or more: a request must not cross with that."""
BUSY_ATTEMPTS = 10
BUSY_PAUSE_S = 1.0
"""An issuer answers 503 while another program holds up its disk. Nothing is measured yet, so that the load can wait."""
_MAX_BYTES = 65_536


class Refused(BenchError):  # noqa: N818  # an answer of the server, which some clients expect
    """The server refused a request. `what` is "token", "handshake" or "subscription"; `status` is 0 for the last one.

    `retry_after_s` is what the server said, 0.0 if it said nothing.
    """

    def __init__(self, sentence: str, *, what: str, answer: Answer | None = None) -> None:
        super().__init__(sentence)
        self.what = what
        self.status = answer.status if answer else 0
        found = re.search(rb"\r\nretry-after: *(\d+)", answer.head, re.IGNORECASE) if answer else None
        self.retry_after_s = float(found[1]) if found else 0.0


def take_token(link: Link, target: Target, hand: Sequence[int], number: int) -> Steps[Token]:
    """Take a token for a hand of channels over a connection to the issuer, with the session of this number. Raises
    Refused if the issuer gives none; BenchError if the server is no issuer.
    """
    session = target.sessions[number % len(target.sessions)]
    answer = yield from link.call(token_request(target, hand, session))
    if answer.status != 200:
        raise Refused(f"The issuer gave no token: {answer.explain()}", what="token", answer=answer)
    try:
        return msgspec.json.decode(answer.body, type=Token)
    except msgspec.DecodeError:
        raise BenchError(f"What answers at {target.issuer} is not a relay's issuer.") from None


def connect(target: Target, hand: Sequence[int], token: Token, *, receive_bytes: int = 0) -> Steps[Link]:
    """Open a connection, and wait until its subscriptions are acknowledged. Raises Refused if the server refuses the
    handshake or a subscription.
    """
    stream = stream_url(target, hand, token)
    link = Link(stream, "ws", receive_bytes=receive_bytes)
    try:
        answer = yield from link.call(handshake(stream, token))
        if answer.status != 101:
            status = _text(answer.head[9:].partition(b"\r\n")[0])
            sentence = f"{stream} refused the handshake: {status}. {_text(answer.body)}".strip()
            raise Refused(sentence, what="handshake", answer=answer)
        if target.channels:
            yield from _await_subscription(link)
    except BaseException:
        link.reset()
        raise
    return link


def _await_subscription(link: Link) -> Steps[None]:
    while (found := re.search(rb'"type":"subscribed".*"rejected":(\[.*?\])', link.received)) is None:
        if error := re.search(rb'\{"type":"error".*?\}', link.received):
            raise Refused(f"The relay answered with an error: {_text(error[0])}", what="subscription")
        if len(link.received) > _MAX_BYTES:
            raise BenchError(f"{link.url} acknowledges no subscription.")
        yield link
        try:
            link.receive()
        except ConnectionResetError:
            reason = close_reason(link.received)
            sentence = f"The relay closed a connection that was just opened. {reason}".strip()
            raise Refused(sentence, what="subscription") from None
    if found[1] != b"[]":
        raise Refused(f"The relay refused the subscription: {_text(found[1])}", what="subscription")


def take_all(
    target: Target, hands: Sequence[Sequence[int]], *, parallel: int = PARALLEL, first: int = 0
) -> list[Token]:
    """Take a token for each hand and connect nowhere; `first` is the number of the first session. Raises BenchError
    with the reason of the first failure.
    """

    def take(issuer: "_Issuer", index: int) -> Steps[Token]:
        return (yield from issuer.token(hands[index], first + index))

    return _each(target, take, count=len(hands), parallel=parallel)


def open_all(
    target: Target,
    hands: Sequence[Sequence[int]],
    *,
    parallel: int = PARALLEL,
    tokens: Sequence[Token] | None = None,
    receive_bytes: int = 0,
) -> list[socket.socket]:
    """Open a connection for each hand, which has the places of its channels; each is subscribed and acknowledged.

     `tokens` are those of `take_all` for the same hands; without them each token is taken just before it is used,
    because it lives for 30 seconds. Raises BenchError with the reason of the first failure; all connections are closed
    then.
    """
    links: list[Link] = []

    def open_one(issuer: "_Issuer", index: int) -> Steps[socket.socket]:
        token = (yield from issuer.token(hands[index], index)) if tokens is None else tokens[index]
        link = yield from connect(target, hands[index], token, receive_bytes=receive_bytes)
        links.append(link)
        return link.socket

    try:
        return _each(target, open_one, count=len(hands), parallel=parallel)
    except BaseException:
        for link in links:
            link.reset()
        raise


def _each(
    target: Target, work: "Callable[[_Issuer, int], Steps[Opened]]", *, count: int, parallel: int
) -> list[Opened]:
    """Do a piece of work for each number below `count`, so many at the same time; return the results in order."""
    found: dict[int, Opened] = {}
    numbers = iter(range(count))

    def worker() -> Steps[None]:
        issuer = _Issuer(target)
        try:
            for number in numbers:
                which = f"(connection {number + 1} of this run)"
                try:
                    found[number] = yield from work(issuer, number)
                except OSError as error:
                    raise BenchError(
                        f"{target.stream} can't be reached: {error.strerror or error} {which}."
                    ) from None
        finally:
            issuer.close()

    workers = [worker() for _ in range(min(parallel, count))]
    try:
        Loop().run(workers, stall_s=OPEN_WITHIN_S)
    except TimeoutError:
        raise BenchError(
            f"{target.stream or target.issuer} did not answer for {OPEN_WITHIN_S:.0f} s."
        ) from None
    finally:
        for one in workers:
            one.close()
    return [found[number] for number in range(count)]


class _Issuer:
    """One worker's connection to the issuer, which is kept alive."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._link: Link | None = None

    def token(self, hand: Sequence[int], number: int) -> Steps[Token]:
        if not self._target.issuer:
            return Token()
        for attempt in range(BUSY_ATTEMPTS + 1):
            if self._link is None or time.monotonic() - self._link.used_at > IDLE_S:
                self.close()
                self._link = Link(self._target.issuer, "http")
            try:
                return (yield from take_token(self._link, self._target, hand, number))
            except Refused as refused:
                if refused.status != 503 or attempt == BUSY_ATTEMPTS:
                    raise
            except OSError as error:
                raise BenchError(
                    f"{self._target.issuer} can't be reached: {error.strerror or error}."
                ) from None
            yield BUSY_PAUSE_S
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        if self._link is not None:
            self._link.reset()


def close_reason(received: bytes | bytearray) -> str:
    """Return the close code and reason if `received` ends with a close frame, else "" (RFC 6455 §5.5.1)."""
    found = re.search(rb"\x88[\x02-\x7d]([\x00-\xff]{2})([ -~]*)$", received)
    return f"Its close code: {int.from_bytes(found[1])} {_text(found[2])}".strip() if found else ""


def _text(data: bytes | bytearray) -> str:
    """Return bytes from a server as one line that a terminal can show."""
    text = data[:300].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in text).strip()
