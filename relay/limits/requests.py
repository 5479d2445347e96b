"""How often tokens and log-ins may be asked for, and the backend called through the API proxy."""

from dataclasses import dataclass

from relay.core.errors import Reason, Refusal
from relay.limits.base import MakeCounts
from relay.limits.retry_after import jittered
from relay.net.addresses import network_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The settings, as texts like "30/minute"."""

    tokens_per_address: str
    tokens_per_session: str
    logins_per_address: str
    logins_per_account: str
    logins_per_account_and_address: str
    proxy_per_session: str
    proxy_per_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """A refusal for now. `retry_after_s` is jittered: clients that were refused together must not return together."""

    refusal: Refusal
    retry_after_s: float


class RateLimits:
    """Counts requests, and refuses those over a limit.

    The limits of sessions and accounts use `shared`, which may count over several nodes. Those of addresses use
    `counts` and come first: a flood from one address must not reach what the nodes share.
    """

    def __init__(self, rates: Rates, *, counts: MakeCounts, shared: MakeCounts | None = None) -> None:
        self._limits: list[_Limit] = []

        def limit(setting: str, what: str, name: str = "") -> _Limit:
            make = counts if setting.endswith("_per_address") else shared or counts
            self._limits.append(_Limit(getattr(rates, setting), what, setting, name or setting, make))
            return self._limits[-1]

        self._address = limit("tokens_per_address", "this address")
        self._session = limit("tokens_per_session", "this session")
        self._login_address = limit("logins_per_address", "log-ins from this address")
        self._login_account = limit("logins_per_account", "log-ins of this account")
        self._login_pair = limit(
            "logins_per_account_and_address", "log-ins of this account from this address"
        )
        self._given_back_address = limit("logins_per_address", "log-ins given back", "given_back_per_address")
        self._given_back_account = limit("logins_per_account", "log-ins given back", "given_back_per_account")
        self._proxy_session = limit("proxy_per_session", "calls of this session")
        self._proxy_address = limit("proxy_per_address", "calls from this address")

    def update(self, rates: Rates) -> None:
        """Use other rates from now on. Where a rate is the same, its counts stay."""
        for limit in self._limits:
            limit.update(getattr(rates, limit.setting))

    async def address(self, address: str) -> Limited | None:
        """Count a request from `address`, of any kind. It comes first: the address costs nothing to find out."""
        return await self._address.hit(network_of(address))

    async def session(self, ref: str) -> Limited | None:
        """Count a token request of the session `ref`."""
        return await self._session.hit(ref)

    async def proxy_session(self, ref: str) -> Limited | None:
        """Count a call of the session `ref` through the API proxy."""
        return await self._proxy_session.hit(ref)

    async def proxy_address(self, address: str) -> Limited | None:
        """Count a call from `address` through the API proxy. It comes before the session is checked."""
        return await self._proxy_address.hit(network_of(address))

    async def login(self, address: str, account: str) -> Limited | None:
        """Count a log-in from `address`. Call it before the backend is asked.

        Otherwise guessing passwords in parallel would be cheaper than one after the other. `account` is a keyed hash
        of the name: people type passwords into that field.
        """
        network = network_of(address)
        return (
            # one password tried at many accounts
            await self._login_address.hit(network)
            # Many passwords tried at one account. This limit is tight: it stops the attacker's address and no other.
            or await self._login_pair.hit(f"{account} {network}")
            # The same from many addresses, as a botnet does. This limit is loose: with a tight one an attacker could
            # lock out any user by typing the user's name (CWE-645). It comes last, so that a log-in that its address
            # may not try is not counted for the account. Open sessions are not affected.
            or await self._login_account.hit(account)
        )

    async def give_back_login(self, address: str, account: str) -> None:
        """Do not count a log-in that `login` has counted and that the backend could not check.

        Otherwise an outage of the backend uses up its users' log-ins, and they are refused when it is over. As many are
        given back as the limits allow log-ins: a backend that fails at wrong passwords only, because of something else
        in the request, must not open its accounts to guessing without a limit.
        """
        network = network_of(address)
        if await self._given_back_address.hit(network) or await self._given_back_account.hit(account):
            return
        await self._login_address.give_back(network)
        await self._login_pair.give_back(f"{account} {network}")
        await self._login_account.give_back(account)


class _Limit:
    def __init__(self, rate: str, what: str, setting: str, name: str, counts: MakeCounts) -> None:
        self.setting = setting
        self._name = name
        self._what = what
        self._make_counts = counts
        self._use(rate)

    def update(self, rate: str) -> None:
        if rate != self._rate:
            self._use(rate)

    def _use(self, rate: str) -> None:
        self._rate = rate
        self._detail = f"{_in_words(rate)} for {self._what}."
        self._counts = self._make_counts(self._name, rate)

    async def hit(self, key: str) -> Limited | None:
        wait_s = await self._counts.hit(key)
        if not wait_s:
            return None
        return Limited(
            refusal=Refusal(reason=Reason.RATE_LIMITED, detail=self._detail), retry_after_s=jittered(wait_s)
        )

    async def give_back(self, key: str) -> None:
        await self._counts.give_back(key)


def _in_words(rate: str) -> str:
    """Return "30 per 1 minute" for "30/minute"."""
    return rate.replace("/", " per 1 ")
