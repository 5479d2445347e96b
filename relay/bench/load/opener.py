"""Takes scoped tokens and opens WebSocket connections with them, a few at the same time.

What `open_all` returns are bare sockets: nothing that arrives on them is parsed, so that no library is measured.
"""

import re
import socket
import time
from collections.abc import Iterable, Sequence

import msgspec

from relay.bench import BenchError
from relay.bench.load.sockets import Answer, Link, Loop, Steps
from relay.bench.load.targets import Target, Token, handshake, stream_url, token_request

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


def take_token(
    link: Link, target: Target, hand: Sequence[int], number: int, *, attempts: int = 1
) -> Steps[Token]:
    """Take a token for a hand of channels over a connection to the issuer, with the session of this number. Raises
    Refused if the issuer gives none; BenchError if the server is no issuer.
    """
    session = target.sessions[number % len(target.sessions)]
    answer = yield from link.call(token_request(target, hand, session))
    for _ in range(attempts - 1):
        if answer.status != 503:
            break
        yield BUSY_PAUSE_S
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
    return [token for token, _ in _for_each(target, hands, parallel, first=first, connects=False)]


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
    opened = _for_each(target, hands, parallel, tokens=tokens, receive_bytes=receive_bytes)
    return [link.socket for _, link in opened if link is not None]


def _for_each(
    target: Target,
    hands: Sequence[Sequence[int]],
    parallel: int,
    *,
    first: int = 0,
    tokens: Sequence[Token] | None = None,
    connects: bool = True,
    receive_bytes: int = 0,
) -> list[tuple[Token, Link | None]]:
    found: dict[int, tuple[Token, Link | None]] = {}
    issuers: list[Link] = []  # one of each worker, kept alive
    numbers = iter(range(len(hands)))

    def worker() -> Steps[None]:
        issuer = None
        for number in numbers:
            token, link, url = tokens[number] if tokens else Token(), None, target.issuer
            try:
                if target.issuer and not tokens:
                    if issuer is None or time.monotonic() - issuer.used_at > IDLE_S:
                        issuer = Link(target.issuer, "http")
                        issuers.append(issuer)
                    token = yield from take_token(
                        issuer, target, hands[number], first + number, attempts=BUSY_ATTEMPTS
                    )
                if connects:
                    url = target.stream or token.endpoint
                    link = yield from connect(target, hands[number], token, receive_bytes=receive_bytes)
            except OSError as error:
                which = f"(connection {number + 1} of this run)"
                raise BenchError(f"{url} can't be reached: {error.strerror or error} {which}.") from None
            found[number] = token, link

    workers = [worker() for _ in range(min(parallel, len(hands)))]
    try:
        Loop().run(workers, stall_s=OPEN_WITHIN_S)
    except BaseException as error:
        for one in workers:
            one.close()
        _reset(link for _, link in found.values())
        if isinstance(error, TimeoutError):
            where = target.stream or target.issuer
            raise BenchError(f"{where} did not answer for {OPEN_WITHIN_S:.0f} s.") from None
        raise
    finally:
        _reset(issuers)
    return [found[number] for number in range(len(hands))]


def _reset(links: Iterable[Link | None]) -> None:
    for link in links:
        if link is not None:
            link.reset()


def close_reason(received: bytes | bytearray) -> str:
    """Return the close code and reason if `received` ends with a close frame, else "" (RFC 6455 §5.5.1)."""
    found = re.search(rb"\x88[\x02-\x7d]([\x00-\xff]{2})([ -~]*)$", received)
    return f"Its close code: {int.from_bytes(found[1])} {_text(found[2])}".strip() if found else ""


def _text(data: bytes | bytearray) -> str:
    """Return bytes from a server as one line that a terminal can show."""
    text = data[:300].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in text).strip()
