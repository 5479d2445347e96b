"""How often tokens and log-ins may be asked for, in sliding windows of the `limits` library.

By address first, because that costs nothing to find out; by session when it is known whose request it is. Log-ins
are counted apart before the backend is asked: guessing passwords in parallel must not be cheaper than one after the
other. The account's name comes as a keyed hash and is not kept (people type passwords into that field).

There are three counts of log-ins. An address at one account: the tight one, which stops who guesses from where he
is, and nobody else. An address at all accounts, for one password tried on many. And an account from everywhere, much
looser: with a tight one anybody could lock anybody out by typing his name (CWE-645), and without one a botnet could
guess from each of its addresses. So only who commands many addresses can keep an owner out, and only while he goes
on; open sessions don't notice. What an address may no longer try is not counted to the account.

The counts are this process's own.
"""

import time
from dataclasses import dataclass

from limits import parse
from limits.strategies import SlidingWindowCounterRateLimiter

from relay.core.errors import Reason, Refusal
from relay.limits.memory import Windows
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """Refused for now; `retry_after_s` is jittered, so that those who were refused together don't return together."""

    refusal: Refusal
    retry_after_s: float


class RateLimits:
    """Counts requests, and tells who has to wait."""

    def __init__(self, rates: Rates) -> None:
        self._address = _Limit(rates.tokens_per_address, "this address")
        self._session = _Limit(rates.tokens_per_session, "this session")
        self._login_address = _Limit(rates.logins_per_address, "log-ins from this address")
        self._login_account = _Limit(rates.logins_per_account, "log-ins of this account")
        self._login_pair = _Limit(
            rates.logins_per_account_and_address, "log-ins of this account from this address"
        )

    def address(self, address: str) -> Limited | None:
        """Count a request from `address`, of whatever kind."""
        return self._address.hit(network_of(address))

    def session(self, ref: str) -> Limited | None:
        """Count a token request of the session `ref`."""
        return self._session.hit(ref)

    def login(self, address: str, account: str) -> Limited | None:
        """Count a log-in from `address`; `account` is a keyed hash of the name that was typed."""
        network = network_of(address)
        return (
            self._login_address.hit(network)
            or self._login_pair.hit(f"{account} {network}")
            or self._login_account.hit(account)
        )


class _Limit:
    """One limit with the counts of its keys."""

    def __init__(self, rate: str, what: str) -> None:
        self._item = parse(rate)
        self._what = what
        self._windows = SlidingWindowCounterRateLimiter(Windows())

    def hit(self, key: str) -> Limited | None:
        if self._windows.hit(self._item, key):
            return None
        reset_in = self._windows.get_window_stats(self._item, key).reset_time - time.time()
        return Limited(
            refusal=Refusal(reason=Reason.RATE_LIMITED, detail=f"{self._item} for {self._what}."),
            retry_after_s=jittered(max(1.0, reset_in)),
        )
