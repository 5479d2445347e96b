"""Clients that come back whenever their connection ends, as a program: `python -m tests.support.returning_clients`.

    in   see `Order`
    out  {"connects_per_s": …}   all are connected for the first time
    in   {"window": true}        a new window begins
    out  {"window": true}
    in   {"after_s": …}          so long after the window's beginning nothing comes any more from what was killed
    out  {"served": true}        after that, all clients were connected and got prices
    in   {"finish": true}        everything is published
    out  {"windows": [{…}]}      see `Window`

They come back as the Python client does, and judge what they get by its rules: a new token for each attempt, the wait
that the relay names or a random one, and each stream goes on after its last message.
"""

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from relay.bench import BenchError
from relay.bench.load.clients import (
    OPEN_WITHIN_S,
    Link,
    Refused,
    Target,
    connect,
    reason,
    run_clients,
    take_token,
)
from relay.bench.load.orders import carry_out, read_order, say
from relay.bench.load.subscribers import deal, quantile
from relay.client import Gap
from relay.client.backoff import Backoff
from relay.client.frames import Reconnect, Snapshot, Subscribed, Update, parse_server_frame
from relay.client.positions import Arrival, Positions
from relay.client.reconnect_policy import GOOD_S

OPEN_PARALLEL = 50
FRESH_WITHIN_S = 2.0
"""So long after its return a client has the price that others had then, or a newer one."""
SERVED_WITHIN_S = 120.0
KNOCK_PAUSE_S = 0.05
ENDS_WITHIN_S = 30.0
"""Seconds in which the end marks reach everybody."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect: to the prices and to the streams of several nodes, half of the clients first to each.

    There are `clients` of each kind, with `each` of the channels (0: all). `knocking` others connect and leave all
    the time.
    """

    prices: list[Target]
    streams: list[Target]
    clients: int
    each: int
    knocking: int


class Window(msgspec.Struct, kw_only=True):
    """What happened in a time of `seconds`.

    `ended` connections ended, `returned` came back, the last of them after `back_s`. `refusals` are the failed attempts
    by reason, `knocks` the connections of the others. The latencies are those of prices, and `pause_ms` is the longest
    time in which a client got no price. `old`: clients that had no fresh price `FRESH_WITHIN_S` after their return.
    `gaps` in streams were told. `lost` messages are missing where none was told, `repeated` ones came twice.
    """

    seconds: float = 0.0
    ended: int = 0
    returned: int = 0
    back_s: float = 0.0
    refusals: dict[str, int] = {}
    knocks: int = 0
    prices: int = 0
    messages: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    pause_ms: float = 0.0
    old: int = 0
    gaps: int = 0
    lost: int = 0
    repeated: int = 0


class _Data(msgspec.Struct):
    t: int = 0
    n: str = ""
    end: str = ""


_data = msgspec.json.Decoder(_Data)


class _Clients:
    """All clients, and the window that counts now."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.newest: dict[str, int] = {}
        """When the newest price of a channel was made that any client has."""
        self.windows: list[Window] = []
        self.begin()
        self.all = [
            _Client(self, targets, hand, number, is_stream=targets is order.streams)
            for targets in (order.prices, order.streams)
            for number, hand in enumerate(deal(order.clients, len(targets[0].channels), order.each))
        ]

    def begin(self) -> None:
        """Begin a window."""
        self.window, self.latencies, self.began_at = Window(refusals={}), list[int](), time.monotonic()
        self.windows.append(self.window)

    def close(self) -> None:
        """Close the window."""
        window, latencies, now = self.window, sorted(self.latencies), time.monotonic()
        window.seconds = now - self.began_at
        window.p50_ms, window.p99_ms = (quantile(latencies, share, unit=1e6) for share in (0.5, 0.99))
        for client in self.all:
            client.count_pause(now)

    def failed(self, error: BenchError | OSError) -> float | None:
        """Count a failed attempt. Return the seconds that the server asks to wait."""
        what, told_s = str(error), None
        if isinstance(error, Refused):
            what, told_s = f"{error.what}: {error.status or error}", error.retry_after_s or None
        elif isinstance(error, OSError):
            what = f"link: {reason(error)}"
        self.window.refusals[what] = self.window.refusals.get(what, 0) + 1
        return told_s

    async def all_served(self, after_s: float) -> None:
        """Wait until all clients are connected, and have got prices in the window after so many seconds."""
        since = self.began_at + after_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVED_WITHIN_S):
                while not all(one.is_served(since) for one in self.all):  # noqa: ASYNC110  # no event
                    await asyncio.sleep(0.05)

    async def knock(self, number: int) -> None:
        """Connect and leave, all the time."""
        backoff = Backoff()
        while True:
            target = self.order.prices[number % len(self.order.prices)]
            try:
                (await _connection(target, range(1), number)).close()
                self.window.knocks += 1
                await asyncio.sleep(KNOCK_PAUSE_S)
            except (BenchError, OSError) as error:
                await asyncio.sleep(backoff.next(told_s=self.failed(error)))


async def _connection(target: Target, hand: Sequence[int], number: int) -> Link:
    """Take a token, and connect with it; without a hand, nothing is subscribed."""
    with contextlib.closing(await Link.open(target.issuer)) as issuer:
        token = await take_token(issuer, target, hand, number)
    return await connect(target if hand else msgspec.structs.replace(target, channels=()), hand, token)


class _Client:
    """One client, over all of its connections."""

    def __init__(
        self,
        clients: _Clients,
        targets: Sequence[Target],
        hand: Sequence[int],
        number: int,
        *,
        is_stream: bool,
    ) -> None:
        self._clients, self._targets, self._number, self._is_stream = clients, targets, number, is_stream
        self._channels = [targets[0].channels[place] for place in hand]
        self._attempts = number
        self._backoff = Backoff()
        self._told_s: float | None = None
        self._positions, self._resumed = Positions(), dict[str, dict[str, object]]()
        self._counts, self._numbers, self._made_at = Counter[str](), dict[str, int](), dict[str, int]()
        self._ends, self._has_gap, self._is_open = dict[str, int](), False, False
        self._priced_at = self._ended_at = 0.0
        self.opened = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """Whether each of its channels has ended."""
        return len(self._ends) == len(self._channels)

    def is_served(self, since: float) -> bool:
        """Tell whether it is connected, and has got a price since a time."""
        return self._is_open and (self._is_stream or self._priced_at > since)

    def missing(self) -> int:
        """Return how many messages did not come although no gap was told; of prices, how many last ones."""
        if not self._is_stream or self._has_gap or not self.is_complete:
            return len(self._channels) - len(self._ends)
        return sum(max(0, count - self._counts[channel]) for channel, count in self._ends.items())

    def count_pause(self, now: float) -> None:
        """Count the time since the last price."""
        if self._priced_at and not self.is_complete:
            pause_s = now - max(self._priced_at, self._clients.began_at)
            self._clients.window.pause_ms = max(self._clients.window.pause_ms, pause_s * 1e3)

    async def run(self) -> None:
        """Connect, and come back each time, until cancelled."""
        while True:
            told_s: float | None = None
            try:
                target = self._targets[self._attempts % len(self._targets)]
                link = await _connection(target, (), self._number)
            except (BenchError, OSError) as error:
                told_s = self._clients.failed(error)
            else:
                opened_at = time.monotonic()
                with contextlib.closing(link), contextlib.suppress(OSError):
                    await self._read(link)
                self._ended_at, self._is_open = time.monotonic(), False
                self._clients.window.ended += 1
                if self._ended_at - opened_at > GOOD_S:
                    self._backoff.reset()
                told_s, self._told_s = self._told_s, None
            self._attempts += 1  # at the next node
            await asyncio.sleep(self._backoff.next(told_s=told_s))

    async def _read(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        at = self._positions.resumable()
        self._resumed = {channel: {"epoch": epoch, "seq": seq} for channel, (epoch, seq) in at.items()}
        asked: dict[str, object] = {"type": "subscribe", "channels": self._channels, "since": self._resumed}
        asked["interval_ms"] = self._targets[0].interval_ms
        await loop.sock_sendall(link.socket, _frame(0x81, msgspec.json.encode(asked)))
        rest = link.received
        while True:
            frames, rest = split_frames(rest)
            now = time.monotonic()
            for head, payload in frames:
                if head == 0x89:
                    await loop.sock_sendall(link.socket, _frame(0x8A, payload))
                elif head == 0x81:
                    self._process(payload, now)
            link.received = b""
            await link.receive()
            rest += link.received

    def _process(self, text: bytes, now: float) -> None:
        frame = parse_server_frame(text)
        if isinstance(frame, Snapshot | Update):
            self._take(frame, now)
        elif isinstance(frame, Subscribed):
            if frame.rejected:
                raise BenchError(f"The relay refused a subscription: {frame.rejected[0].code}")
            self._tell(self._positions.acknowledge(frame, self._resumed.keys()))
            self._returned(now)
        elif isinstance(frame, Reconnect):
            self._told_s = frame.delay_ms / 1e3

    def _returned(self, now: float) -> None:
        self.opened.set()
        self._is_open = True
        if not self._ended_at:
            return
        clients, window = self._clients, self._clients.window
        window.returned += 1
        window.back_s = now - clients.began_at
        had = {channel: clients.newest.get(channel, 0) for channel in self._channels}
        asyncio.get_running_loop().call_later(FRESH_WITHIN_S, self._check_fresh, had)

    def _check_fresh(self, had: Mapping[str, int]) -> None:
        self._clients.window.old += any(self._made_at.get(channel, 0) < at for channel, at in had.items())

    def _tell(self, gaps: Sequence[Gap]) -> None:
        self._clients.window.gaps += len(gaps)
        self._has_gap = self._has_gap or bool(gaps)

    def _take(self, value: Snapshot | Update, now: float) -> None:
        window, channel = self._clients.window, value.channel
        before = self._positions.at(channel)
        arrival = self._positions.classify(value)
        if arrival is Arrival.JUMP and before is not None:
            window.lost += value.seq - before[1] - 1
            self._positions.classify(value)  # gives the missing ones up
            arrival = self._positions.classify(value)
        if isinstance(arrival, Gap):
            self._tell([arrival])
            arrival = self._positions.classify(value)
        if arrival is Arrival.REPEAT:
            window.repeated += self._is_stream and isinstance(value, Update)
            return
        data = _data.decode(value.raw)
        if data.end:
            self._ends[channel] = int(data.end.rpartition(".")[2])
        elif self._is_stream:
            number = int(data.n.rpartition(".")[2])
            window.messages += 1
            window.repeated += number <= self._numbers.get(channel, -1)
            self._numbers[channel] = number
            self._counts[channel] += 1
        else:
            window.prices += 1
            self._made_at[channel] = data.t
            self._clients.newest[channel] = max(data.t, self._clients.newest.get(channel, 0))
            self.count_pause(now)
            self._priced_at = now
            if isinstance(value, Update):
                self._clients.latencies.append(time.monotonic_ns() - data.t)


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return first byte and payload of each complete frame of a server, and the rest (RFC 6455 §5.2)."""
    found = []
    begin = 0
    while len(data) > begin + 1:
        start = begin + {126: 4, 127: 10}.get(data[begin + 1], 2)
        length = data[begin + 2 : start] or data[begin + 1 : start]
        end = start + int.from_bytes(length)
        if len(data) < end:
            break
        found.append((data[begin], data[start:end]))
        begin = end
    return found, data[begin:]


def _frame(head: int, payload: bytes) -> bytes:
    """Return a client's frame (RFC 6455 §5.2), masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2)
    return bytes([head]) + length + bytes(4) + payload


async def come_back(order: Order) -> None:
    """Connect all, and let them come back as often as they must, until everything is published."""
    clients = _Clients(order)
    turn = asyncio.Semaphore(OPEN_PARALLEL)
    tasks: list[asyncio.Task[None]] = []

    async def open_one(client: _Client) -> None:
        async with turn:
            tasks.append(asyncio.create_task(client.run()))
            await client.opened.wait()

    try:
        opened = map(open_one, clients.all)
        await run_clients(opened, lambda: sum(c.opened.is_set() for c in clients.all), stall_s=OPEN_WITHIN_S)
    except TimeoutError:
        raise BenchError(f"Not all clients could connect: {clients.window.refusals}") from None
    say(connects_per_s=len(clients.all) / (time.monotonic() - clients.began_at))
    knocking = [asyncio.create_task(clients.knock(number)) for number in range(order.knocking)]
    gc.freeze()
    gc.disable()  # a collection would be reported as the server's latency
    while "finish" not in (asked := await asyncio.to_thread(read_order)):
        if "after_s" in asked:
            await clients.all_served(asked["after_s"])
            say(served=True)
        else:
            clients.close()
            clients.begin()
            say(window=True)
    clients.close()
    for task in knocking:
        task.cancel()
    await asyncio.sleep(FRESH_WITHIN_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ENDS_WITHIN_S):
            while not all(client.is_complete for client in clients.all):  # noqa: ASYNC110  # 2,000 events otherwise
                await asyncio.sleep(0.05)
    clients.window.lost += sum(client.missing() for client in clients.all)
    say(windows=clients.windows)


if __name__ == "__main__":
    carry_out(Order, come_back)
