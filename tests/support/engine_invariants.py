"""Two nodes on an engine that a test breaks, what was promised to their callers, and the check that it holds.

`Nodes` records each acknowledged publication, each answer to a claim and each revocation. `Nodes.check` is what has to
hold after any fault; the letters are those of its errors:

A  Each acknowledged publication was delivered to each node, or the node knows that it missed something.
B  No position stands for two values, and no value has two positions.
C  A node gets the numbers of a channel without a gap, or knows that it missed something. Channels with a history have
   no gap at all.
D  The last values of both nodes, of the engine and of the publisher are the same.
E  No token was used twice. A token that nobody else used was not called a replay.
F  Each revocation is in force on both nodes, and on one that starts now.
G  Every call was answered, and no task is left.
H  No refresh token was given to two nodes at once, and no result of a refresh is lost.

A node whose clock differs from the engine's gets no claim and no lease, and everything else holds for it.
"""

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from relay.broker.base import Position
from relay.core.errors import UnavailableError
from relay.core.publications import Publication, parse_draft
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.claims import _Claim
from relay.engine.families import EngineFamilies
from relay.engine.options import EngineOptions
from relay.engine.scripts import Script, script
from relay.engine.state import EngineState
from tests.support.engine_logins import Logins
from tests.support.engines import LossyLink

CHANNELS = ("latest.a", "latest.b", "stream.a")
SETTLES_WITHIN_S = 60.0
_PER_ROUND_S = 0.02
T = TypeVar("T")


class Hub:
    """A receiver that keeps what it got."""

    def __init__(self) -> None:
        self.got: list[Publication] = []
        self.last: dict[str, Publication] = {}

    def publish(self, publication: Publication) -> None:
        """See `Receiver.publish`."""
        self.got.append(publication)
        self.last[publication.channel] = publication

    def alive(self, channel: str, *, ts: int) -> None:
        """See `Receiver.alive`."""

    def remove(self, name: str, /) -> None:
        """See `Receiver.remove`."""
        self.last.pop(name, None)

    def delivered(self, entry: int, epoch: str, *, log: int = 0) -> None:
        """See `Receiver.delivered`."""


class Nodes:
    """Two nodes, each with options of its own, and the workload of their callers.

    `links` are theirs, if they have some. `clocks` are the seconds that the clock of each is ahead. `scripts` are those
    that a test has changed.
    """

    def __init__(self, options: Sequence[EngineOptions], links: Sequence[LossyLink] = ()) -> None:
        self._options = options
        self.links = links
        self.clocks = [0.0, 0.0]
        self.scripts: dict[str, Script] = {}
        self.states: list[EngineState] = []
        self.brokers: list[EngineBroker] = []
        self.families: list[EngineFamilies] = []
        self.logins = Logins(self.families)
        self.hubs: list[Hub] = []
        self.acknowledged: dict[tuple[str, str, int], int] = {}
        self.positions: dict[int, tuple[str, str, int]] = {}
        self.newest: dict[str, int] = {}
        self.claims: dict[str, tuple[float, list[object]]] = {}
        self.revoked: list[str] = []
        self.broken: list[str] = []
        self.refused = 0
        self.rounds = 0
        self.within_s: defaultdict[str, float] = defaultdict(lambda: SETTLES_WITHIN_S)
        """How long a check waits for what has to come, by its letter."""
        self.settled_s = 0.0
        """Seconds that the last check waited until both nodes agreed."""
        self._differing: set[int] = set()
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        """Start both nodes."""
        for node, options in enumerate(self._options):

            def clock(node: int = node) -> float:
                return time.time() + self.clocks[node]

            self.states.append(await at_last(partial(EngineState.open, options, clock=clock)))
            self.families.append(await at_last(partial(EngineFamilies.open, options, clock=clock)))
            broker = EngineBroker(
                options,
                max_channels=100,
                history_of=lambda name: KeptHistory(
                    messages=20_000 if name.startswith("stream.") else 0, seconds=600
                ),
            )
            self.brokers.append(broker)
            hub = Hub()
            broker.attach(hub, after=(await at_last(broker.load)).delivery_position)
            self.hubs.append(hub)

    async def close(self) -> None:
        """End both nodes."""
        parts: list[EngineBroker | EngineFamilies | EngineState] = [
            *self.brokers,
            *self.families,
            *self.states,
        ]
        for part in parts:
            await part.aclose()

    @property
    def options(self) -> EngineOptions:
        """The options of the first node."""
        return self._options[0]

    def go_to(self, port: int, *, only: int | None = None) -> None:
        """Let the nodes, or one of them, go to another server. The connections of now break."""
        for node, link in enumerate(self.links):
            if only in (None, node):
                link.target = port
                link.reset()

    def script(self, name: str) -> Script:
        """Return the script that the nodes use."""
        return self.scripts.get(name) or script(name)

    # the workload

    async def publish(self, node: int, channel: str) -> bool:
        """Publish the next value on a node. False: it is unknown whether it was published."""
        value = next(self._numbers)
        draft = parse_draft(json.dumps({"channel": channel, "data": value}).encode())
        try:
            answer = await self.brokers[node].publish(draft, ts=1)
        except UnavailableError:
            self.refused += 1
            return False
        assert isinstance(answer, Position)
        self._record((answer.epoch, channel, answer.seq), value)
        self.acknowledged[answer.epoch, channel, answer.seq] = value
        self.newest[channel] = value
        return True

    def _record(self, position: tuple[str, str, int], value: int) -> None:
        before = self.positions.setdefault(value, position)
        if before != position:
            self.broken.append(f"B: {value} was published at {before} and at {position}")

    async def remove(self, node: int, channel: str) -> None:
        """Remove a channel on a node."""
        assert await self.brokers[node].remove(channel)
        del self.newest[channel]

    async def claim(self, jti: str, issued_at: float, nodes: tuple[int, ...] = (0, 1)) -> list[object]:
        """Claim a token on nodes at once. An answer is whether it may be used.

        After a loss of data it may have been used before: "lost data". None stands for any other error.
        """

        calls = [self._answer(jti, issued_at, node=node) for node in nodes]
        answers = [*await asyncio.gather(*calls)] if len(calls) > 1 else [await calls[0]]
        self.claims.setdefault(jti, (issued_at, []))[1].extend(answers)
        return answers

    async def _answer(self, jti: str, issued_at: float, *, node: int) -> object:
        try:
            return await self.states[node].claim(jti, expires_at=issued_at + 30, issued_at=issued_at)
        except UnavailableError as error:
            return "lost data" if "lost data" in str(error) else None

    async def _can_be_used(self, jti: str, issued_at: float) -> bool:
        """Claim a token until there is an answer, which may come too late on a busy machine.

        It is the same claim each time. Another one would find that the first one has used the token.
        """
        nodes = [node for node in range(len(self.states)) if node not in self._differing]
        claim = _Claim(jti, issued_at)
        while nodes:
            shard = self.states[random.choice(nodes)].claims._shard(jti)
            with contextlib.suppress(UnavailableError):
                answer, *_ = await shard._answer(claim)
                if answer != b"c":  # by a right clock
                    return answer == b"1"
        return False

    async def revoke(self, node: int) -> bool:
        """Revoke a session on a node."""
        key = f"session-{len(self.revoked)}-{next(self._numbers)}"
        try:
            await self.states[node].revoke(key, at=time.time(), until=time.time() + 600)
        except UnavailableError:
            return False
        self.revoked.append(key)
        return True

    async def round(self) -> None:
        """Do some of each. Errors are right, false answers are not."""
        publishing: list[Awaitable[object]] = [
            self.publish(node, channel) for node in (0, 1) for channel in CHANNELS
        ]
        token = f"token-{next(self._numbers)}"
        await asyncio.gather(*publishing, self.claim(token, time.time()), self.revoke(self.rounds % 2))
        self.rounds += 1

    @contextlib.asynccontextmanager
    async def busy(self, *, is_logging_in: bool = True) -> AsyncIterator[None]:
        """Do rounds while the body runs."""
        end = asyncio.Event()

        async def work() -> None:
            while not end.is_set():
                await self.round()
                await asyncio.sleep(_PER_ROUND_S)

        tasks = [asyncio.create_task(work())]
        if is_logging_in:
            tasks.append(asyncio.create_task(self.logins.run(end)))
        try:
            yield
        finally:
            end.set()
            await asyncio.gather(*tasks)

    @contextlib.asynccontextmanager
    async def wrong_clocks(self, *nodes: int) -> AsyncIterator[None]:
        """Expect of these nodes, while the body runs, that their clocks differ from the engine's."""
        self._differing = set(nodes)
        yield
        self._differing = set()

    async def more(self, rounds: int = 3) -> None:
        """Wait until the workload has done so many more rounds."""
        wanted = self.rounds + rounds
        await self.until(lambda: self.rounds >= wanted)

    async def blind(self) -> None:
        """Wait until both nodes know that the engine is silent."""
        await self.until(lambda: all(state.is_blind for state in self.states))

    async def start_another(self) -> int:
        """Start the state store of one more node, and return its number for `claim`."""
        self.states.append(await at_last(partial(EngineState.open, self.options)))
        return len(self.states) - 1

    async def cut_off(self, node: int) -> None:
        """Wait until a node knows that it hears of no revocation, because its server does not accept writes.

        Raises:
            AssertionError: if it takes what it hears for an answer.
        """
        pulse = self.states[node].pulse
        try:
            await self.until(
                lambda: self.states[node].is_blind and "NOREPLICAS" in pulse.why,
                within_s=self.within_s["F"] + 2,
            )
        except TimeoutError:
            raise AssertionError("F: a node that hears of no revocation does not know it") from None

    async def settled(self) -> None:
        """Wait until both nodes have read the whole control log, and have nothing to write back.

        A revocation that failed, on a busy machine, lets its node begin to read again, which writes.
        """
        for state in self.states:
            reader = state._reader
            await self.until(lambda reader=reader: reader.position is not None and not reader._is_asked_again)

    async def answered_claim(self, node: int) -> None:
        """Wait until the engine has answered a claim, however it did."""
        while True:
            try:
                await self.states[node].claim(f"answered-{next(self._numbers)}", expires_at=0, issued_at=0)
            except UnavailableError as error:
                if "did not answer" in str(error):
                    continue
            return

    async def failing(self) -> None:
        """Wait until a publication was refused."""
        before = self.refused
        await self.until(lambda: self.refused > before)

    async def cancelled_callers(self, count: int) -> None:
        """Call, and go away at random moments."""
        for number in range(count):
            is_publication = random.random() < 0.5
            call: Any = self.publish(0, CHANNELS[number % 3]) if is_publication else self.revoke(0)
            task = asyncio.create_task(call)
            for _ in range(random.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, condition: Any, *, within_s: float = SETTLES_WITHIN_S) -> None:
        """Wait until something is true that nothing can be awaited for."""
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.005)

    # what must hold

    async def check(self, *, publishing: bool = True) -> None:
        """Wait until both nodes are well again, and check everything. Without `publishing` nobody sends a new value.

        Raises:
            AssertionError: with the letter of what does not hold.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.within_s["D"]):
                await self._settle(publishing=publishing)
        except TimeoutError:
            values = [{name: value.data for name, value in hub.last.items()} for hub in self.hubs]
            raise AssertionError(f"D: the nodes do not agree: {values}, published: {self.newest}") from None
        self.settled_s = time.monotonic() - began
        self._check_positions()
        await self._check_claims()
        await self._check_revocations(self.within_s["F"])
        try:
            async with asyncio.timeout(self.within_s["H"]):
                await self.logins.check(completing=not self._differing)
        except TimeoutError:
            raise AssertionError("H: a refresh token that was renewed waits") from None
        assert not self.broken, self.broken[0]

    async def _settle(self, *, publishing: bool) -> None:
        if publishing:
            for channel in CHANNELS:
                for node in (0, 1):
                    while not await self.publish(node, channel):  # noqa: ASYNC110  # the engine is away
                        await asyncio.sleep(0.01)
        while True:
            try:
                values = {one.channel: int(one.data) for one in (await self.brokers[0].load()).values}
            except UnavailableError:
                continue
            if publishing and values != self.newest:
                raise AssertionError(f"D: the engine has {values}, published: {self.newest}")
            nodes = [{name: int(one.data) for name, one in hub.last.items()} for hub in self.hubs]
            if nodes == [values, values]:
                return
            await asyncio.sleep(0.01)

    def _check_positions(self) -> None:
        for broker, hub in zip(self.brokers, self.hubs, strict=True):
            last: dict[str, Publication] = {}
            got = set()
            for one in hub.got:
                position = (one.epoch, one.channel, one.seq)
                self._record(position, int(one.data))
                expected = self.acknowledged.get(position)
                assert expected in (None, int(one.data)), f"B: {position} is {expected} and {int(one.data)}"
                before = last.get(one.channel)
                # after a loss the last value may be one of an earlier epoch again
                is_back = broker.resyncs > 0 and before is not None and before.epoch != one.epoch
                assert position not in got or is_back, f"A: {position} was delivered twice"
                got.add(position)
                if before is not None and before.epoch == one.epoch and one.seq != before.seq + 1:
                    is_kept = one.channel.startswith("stream.")
                    is_told = broker.resyncs > 0 and not is_kept
                    assert is_told, f"C: {one.channel} {before.seq} → {one.seq}"
                last[one.channel] = one
            missing = self.acknowledged.keys() - got
            assert broker.resyncs or not missing, f"A: a node never got {sorted(missing)[:3]}"

    def check_uses(self) -> list[tuple[str, float]]:
        """Return the tokens that were used, with the times when they were issued.

        Raises:
            AssertionError: if one was used twice, or was called a replay although nobody used it.
        """
        was_used = []
        for jti, (issued_at, answers) in self.claims.items():
            used = answers.count(True)
            assert used <= 1, f"E: {jti} was used {used} times"
            if used == 0 and False in answers and None not in answers:
                raise AssertionError(f"E: {jti} was called a replay, and nobody used it")
            if used:
                was_used.append((jti, issued_at))
        return was_used

    async def _check_claims(self) -> None:
        was_used = self.check_uses()
        for first in range(0, len(was_used), 1000):
            some = was_used[first : first + 1000]
            again = await asyncio.gather(*(self._can_be_used(*one) for one in some))
            assert True not in again, "E: a token was used a second time after the fault"
        fresh = await self._claim_fresh()
        while not fresh.count(True) and len(self._differing) < len(self.states):
            # on a busy machine a call may come so late that the clocks seem to differ
            assert None in fresh, "E: a new token was called a replay"
            fresh = await self._claim_fresh()
        assert fresh.count(True) <= 1, f"E: of two uses of a new token {fresh} succeeded"
        for node in self._differing:
            assert fresh[node] is None, f"E: a node with a wrong clock answered {fresh[node]} to a claim"

    async def _claim_fresh(self) -> list[object]:
        return await self.claim(f"fresh-{next(self._numbers)}", time.time() + 5)

    async def _check_revocations(self, within_s: float) -> None:
        def unknown() -> list[str]:
            return [key for key in self.revoked for state in self.states if state.revoked_at(key) is None]

        try:  # a node that wrote one back has told the other one, which has not read it yet
            await self.until(lambda: not unknown(), within_s=within_s)
        except TimeoutError:
            raise AssertionError(
                f"F: of {len(self.revoked)} revocations a node does not know {unknown()[:3]}"
            ) from None

        async def known_to_a_new_node() -> bool:
            later = await at_last(partial(EngineState.open, self.options))
            try:
                return all(later.revoked_at(key) is not None for key in self.revoked)
            finally:
                await later.aclose()

        try:
            async with asyncio.timeout(within_s):
                while not await known_to_a_new_node():  # noqa: ASYNC110  # it has no event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError("F: a node that starts now does not know all revocations") from None


async def at_last(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the engine answers. On a busy machine an answer may come too late, also without a fault."""
    async with asyncio.timeout(SETTLES_WITHIN_S):
        while True:
            with contextlib.suppress(UnavailableError):
                return await call()


def engine_tasks() -> list[str]:
    """Return the names of the tasks of engines' parts that run."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("relay-engine")]
