"""Browsers that come at the same time, as a program: `python -m relay.bench.load.browsers`.

Each takes a token, connects with it at once, and stays. `parallel` of them are on their way at any time; with as many
as there are connections all come at once. A browser that is told to wait waits so long, and one whose token has
become too old on the way takes a new one, as the clients do.
"""

import contextlib
import re
import time
from collections import Counter

import msgspec

from relay.bench.load.connections import Order
from relay.bench.load.opener import Refused, connect, take_token
from relay.bench.load.orders import InputEnded, Progress, carry_out, has_line, read_line, say
from relay.bench.load.sockets import Link, Loop, Steps
from relay.bench.load.targets import Token

ATTEMPTS = 8
FIRST_BACK_OFF_S = 0.5
GIVE_UP_S = 60.0
"""When no browser got a connection for so long, those that are still on their way count as lost."""
_PING = re.compile(rb"\x89([\x00-\x7d])")


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """How the browsers got their connections.

    `lost` got none in `ATTEMPTS` attempts, or were closed again. `refusals` counts the answers after which a browser
    waited or tried again. `max_ms` is the longest time from a browser's first packet to its acknowledged
    subscription, waits included; None if no browser got one.
    """

    connections: int
    lost: int
    refusals: dict[str, int]
    max_ms: float | None

    @property
    def refused(self) -> int:
        """All of `refusals`."""
        return sum(self.refusals.values())


class Browsers:
    """All browsers of one order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._loop = Loop()
        self._links: list[Link] = []
        self._refusals: Counter[str] = Counter()
        self._begun = self._connected = self._lost = 0
        self._max_s = 0.0

    def arrive(self) -> Arrived:
        """Return when every browser has a connection or is lost."""
        order, progress = self._order, Progress()
        settled, moved_at = 0, time.monotonic()
        while settled < order.connections and time.monotonic() - moved_at < GIVE_UP_S:
            while self._begun < order.connections and self._begun - settled < order.parallel:
                self._begun += 1
                self._loop.start(self._browser(order.first + self._begun - 1))
            self._loop.turn()
            if settled != self._connected + self._lost:
                settled, moved_at = self._connected + self._lost, time.monotonic()
            progress.tell(settled)
        return Arrived(
            connections=order.connections,
            lost=order.connections - sum(link.socket.fileno() >= 0 for link in self._links),
            refusals=dict(self._refusals),
            max_ms=self._max_s * 1e3 if self._connected else None,
        )

    def stay(self) -> None:
        """Answer pings until standard input ends."""
        while not has_line() or read_line():
            self._loop.turn()

    def close(self) -> None:
        """Close all connections."""
        for link in self._links:
            link.reset()

    def _browser(self, number: int) -> Steps[None]:
        began_at = time.monotonic()
        for _ in range(ATTEMPTS):
            try:
                link = yield from self._attempt(number)
            except Refused as refused:
                self._refusals[f"{refused.what}: {refused.status or refused}"] += 1
                yield refused.retry_after_s or FIRST_BACK_OFF_S
            except OSError as error:
                self._refusals[f"link: {error.strerror or type(error).__name__}"] += 1
                yield FIRST_BACK_OFF_S
            else:
                self._links.append(link)
                self._connected += 1
                self._max_s = max(self._max_s, time.monotonic() - began_at)
                yield from _answer_pings(link)
                return
        self._lost += 1

    def _attempt(self, number: int) -> Steps[Link]:
        target, token = self._order.target, Token()
        hand = range(len(target.channels))
        if target.issuer:
            issuer = Link(target.issuer, "http")
            try:
                token = yield from take_token(issuer, target, hand, number)
            finally:
                issuer.reset()
        return (yield from connect(target, hand, token))


def _answer_pings(link: Link) -> Steps[None]:
    """Answer pings, as every browser does, until the connection ends."""
    try:
        while True:
            link.received = b""
            yield link
            link.receive()
            for ping in _PING.finditer(link.received):
                payload = link.received[ping.end() : ping.end() + ping[1][0]]
                link.socket.send(b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload)
    except OSError:
        link.reset()


def arrive_and_stay(order: Order) -> None:
    """Let all browsers come, report how they did, and hold their connections."""
    browsers = Browsers(order)
    say(result=browsers.arrive())
    with contextlib.suppress(InputEnded):
        browsers.stay()
    browsers.close()


if __name__ == "__main__":
    carry_out(Order, arrive_and_stay)
