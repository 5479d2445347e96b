"""Log-ins whose refresh tokens two nodes want to redeem at the same time, and the check that only one could."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

from relay.core.errors import UnavailableError
from relay.engine.families import EngineFamilies
from relay.state.families import Family, Redeem, Renewal, Succeeded, Taken, Wait

LEASE_S = 600.0
"""No lease of a test ends before the test does."""
DAY_S = 86_400.0
_PER_ROUND_S = 0.05


class Logins:
    """Log-ins of two nodes. Some leases are held through the fault: their calls of the backend take that long."""

    def __init__(self, nodes: Sequence[EngineFamilies]) -> None:
        self._nodes = nodes
        self._held: dict[bytes, tuple[int, bytes]] = {}
        self._renewed: list[bytes] = []
        self._numbers = itertools.count(1)
        self.broken: list[str] = []

    async def hold(self, node: int = 0) -> None:
        """Log in on a node, take a lease there, and keep it."""
        while True:  # on a busy machine an answer may come too late, also without a fault
            token = self._new_token()
            with contextlib.suppress(UnavailableError):
                await self._begin(token, node)
                if (taken := await self._take(node, token)) is not None:
                    break
        assert isinstance(taken, Redeem), taken
        self._held[token] = (node, taken.lease)

    async def round(self) -> None:
        """Let a log-in be refreshed on both nodes at once, and try the tokens of leases that are held."""
        token = self._new_token()
        try:
            await self._begin(token)
        except UnavailableError:
            return
        taken = await asyncio.gather(*(self._take(node, token) for node in (0, 1)))
        redeemed = [(node, one.lease) for node, one in enumerate(taken) if isinstance(one, Redeem)]
        if len(redeemed) > 1:
            self.broken.append("H: two nodes may redeem one refresh token")
        for node, lease in redeemed[:1]:
            is_stored = await self._complete(node, token, lease)
            if is_stored:
                self._renewed.append(token)
            elif is_stored is False:
                self.broken.append("H: the result of a refresh was refused")
        await self.try_held()

    async def run(self, end: asyncio.Event) -> None:
        """Do rounds until `end` is set."""
        while not end.is_set():
            await self.round()
            await asyncio.sleep(_PER_ROUND_S)

    async def check(self, *, completing: bool = True) -> None:
        """Check that no held lease was given twice, and that no result was lost.

        With `completing` the calls with the held leases end first.
        """
        await self.try_held()
        assert not self.broken, self.broken[0]
        if not completing:
            return
        for token, (node, lease) in self._held.items():
            assert await self._complete(node, token, lease), "H: the result of a held lease was refused"
        for token in (*self._held, *self._renewed[-20:]):
            taken = await self._taken_at_last(token)
            assert isinstance(taken, Succeeded), f"H: a refresh token was renewed, and is then {taken}"
        self._held.clear()

    async def try_held(self) -> None:
        """Ask the other node for each lease that is held."""
        for token, (node, _) in self._held.items():
            if isinstance(await self._take(1 - node, token), Redeem):
                self.broken.append("H: another node may redeem a refresh token whose lease is held")

    async def _taken_at_last(self, token: bytes) -> Taken | None:
        while True:  # until a node has written back what a loss took
            taken = await self._take(1, token)
            if taken is not None and not isinstance(taken, Wait):
                return taken
            await asyncio.sleep(0.02)

    def _new_token(self) -> bytes:
        return next(self._numbers).to_bytes(16)

    async def _begin(self, token: bytes, node: int = 0) -> None:
        login = Family(session=f"ref-{token.hex()}", subject="u1", logged_in_at=1_000)
        await self._nodes[node].begin(token, login, address="192.0.2.1", keep_s=DAY_S)

    async def _take(self, node: int, token: bytes) -> Taken | None:
        """Return what a node may do, or None for an error."""
        try:
            return await self._nodes[node].take(token, lease_s=LEASE_S, unconfirmed_s=DAY_S, keep_s=DAY_S)
        except UnavailableError:
            return None

    async def _complete(self, node: int, token: bytes, lease: bytes) -> bool | None:
        """Store a result. None: it is unknown whether it was stored."""
        renewal = Renewal(
            successor=b"s" + token[1:], sealed=b"sealed", family=None, address="192.0.2.1", keep_s=DAY_S
        )
        try:
            return await self._nodes[node].complete(token, lease, renewal)
        except UnavailableError:
            return None
