"""The keys at a JWKS URL, fetched rarely and cached.

- Callers at the same time share one request.
- Keys older than a minute are refreshed in the background. Callers wait only if the cached keys are too old.
- A kid that is not in the cached set causes a request, within a budget (`_Looks`): anybody can write a token with an
  invented kid, and its form proves nothing.
- Until it is certain that there is no such key, the answer is "not available now" and not "no": a "no" ends sessions.
- While the publisher is unavailable, cached keys stay valid for an hour, so that sessions do not all end. They are not
  valid for longer, because the publisher may have withdrawn a key. A set without any usable key, or with a private
  one, is no outage: no key is valid then.
"""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from relay.core import strict_json
from relay.core.errors import MalformedError, Reason, UnavailableError
from relay.core.jwk_set import KeySet, NoKey, PrivateKeyError
from relay.core.jws import VerifyKey
from relay.core.token_bucket import TokenBucket
from relay.keys.jwks_url import check_jwks_url, is_private
from relay.keys.lifecycle import REFRESH_S
from relay.net.addresses import is_loopback, network_of, parse_address
from relay.net.backend_faults import TEMPORARY
from relay.net.http_client import UrlClient

WAIT_S: Final = 2 * REFRESH_S
"""Age from which a caller waits for the refresh: after an idle hour the first caller must not get an old answer."""

STALE_S: Final = 3600.0
"""Age up to which keys are valid while the publisher is unavailable."""

COOL_DOWN_S: Final = 10.0
"""Seconds between two requests that tokens of one network cause by unknown kids: at most 6 requests a minute."""

LOOKS: Final = 5
"""Requests for unknown kids of all networks that may follow each other at once."""

LOOK_EVERY_S: Final = 3.0
"""Seconds after which one more is allowed: at most 20 a minute. One network alone can't use that up. If many do, a new
key is still known after 3 s, also if a stranger causes the request."""

SETTLE_S: Final = 10.0
"""Seconds between two looks without a result, after which a kid counts as unknown. Publishers with several servers or
a cache in front may still serve the old set when the first tokens of a new key come."""

RETRY_S: Final = 2.0
"""Seconds between a failure and the next request: as long as one attempt may take."""

TIMEOUT_S: Final = 2.0

MAX_BYTES: Final = 1 << 20
"""Longest set. A key with a chain of certificates has 5 KB, and providers publish up to some dozens."""

_MAX_CALLERS: Final = 10_000
_MAX_MISSED: Final = 1000
_SKIPPED_LOGGED: Final = 20

log = structlog.get_logger("relay")


class _Looks:
    """The budget of requests for kids that are not in the cached set."""

    def __init__(self, now: float) -> None:
        self._bucket = TokenBucket.full(rate=1 / LOOK_EVERY_S, burst=LOOKS, now=now)
        self._callers: OrderedDict[str, float] = OrderedDict()

    def allow(self, caller: str, now: float) -> bool:
        """Count a request that a token from the address `caller` causes, if it may."""
        caller = network_of(caller)
        if now < self._callers.get(caller, -float("inf")) + COOL_DOWN_S or self._bucket.acquire(now):
            return False
        self._callers[caller] = now
        self._callers.move_to_end(caller)
        if len(self._callers) > _MAX_CALLERS:
            self._callers.popitem(last=False)  # the oldest one
        return True


class JwksClient:
    """The keys at one JWKS URL. End it with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        read: Callable[[Mapping[str, Any]], KeySet],
        settle_s: float = 0.0,
        private_http: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch nothing yet. `read` returns the wanted keys of a document, or raises `MalformedError`.

        `settle_s` is `SETTLE_S` for a publisher that may use a key before each of its servers publishes it. For
        `private_http` see `check_jwks_url`.

        Raises:
            ConfigurationError: if keys may not be fetched from `url`.
        """
        check_jwks_url(url, private_http=private_http)
        self._client = UrlClient(url, name="The JWKS address", timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES)
        host = urlsplit(url).hostname or ""
        self._plain_host = host if url.startswith("http://") and not is_loopback(host) else ""
        self._read = read
        self._settle_s = settle_s
        self._clock = clock
        self._set = KeySet()
        self._fetched_at: float | None = None
        self._failure = ""
        self._failure_reason = Reason.BACKEND_UNAVAILABLE
        self._retry_at = -float("inf")
        self._looks = _Looks(clock())
        self._asked_at = -float("inf")
        self._missed: OrderedDict[str, float] = OrderedDict()
        self._fetching: asyncio.Task[None] | None = None

    async def key(
        self, kid: str, *, fits: Callable[[VerifyKey], bool] | None = None, caller: str = ""
    ) -> VerifyKey | NoKey:
        """Return the key for a token with this `kid` ("": none), or that the publisher has none.

        See `KeySet.find` for `fits`; with None, only a kid finds a key. If the key with this kid does not fit, the
        publisher may have a new key under the old name, so it is asked once more, if the budget allows it. `caller` is
        the client's address, whose network the budget counts.

        Raises:
            UnavailableError: if no keys, or no fresh keys, could be fetched, or if it is not certain yet that there is
                no such key. A client may try again.
        """
        fits_guess = fits or (lambda _: False)
        found = self._set.find(kid, fits=fits_guess)
        known = found.several if isinstance(found, NoKey) else fits is None or fits(found)
        age = self._age()
        if self._is_due(age, known=known, caller=caller):
            self._start()
        # a caller whose key is cached waits only if it is old, and if the last request did not fail
        waits = self._fetching and (not known or age >= STALE_S or (age >= WAIT_S and not self._failure))
        if waits and self._fetching:
            await asyncio.wait({self._fetching})
            found = self._set.find(kid, fits=fits_guess)
        if self._age() >= STALE_S:
            # a wrong path or a page in HTML comes again each time, and then it does not help to try again
            raise UnavailableError(self._failure_reason, self._failure or "No keys were fetched yet.")
        if isinstance(found, VerifyKey):
            self._missed.pop(kid, None)
            return found
        if found.several:
            return found
        if self._failure:
            raise _unavailable(self._failure)
        if not waits or not self._is_settled(kid):
            raise _unavailable(
                f"{found.detail.removesuffix('.')}, as far as is known now. It may be a new key: the relay asks again."
            )
        return found

    async def aclose(self) -> None:
        """Cancel a running fetch and close the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
        await self._client.aclose()

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _is_due(self, age: float, *, known: bool, caller: str) -> bool:
        now = self._clock()
        if self._fetching is not None or now < self._retry_at:
            return False
        return age >= REFRESH_S or (not known and self._looks.allow(caller, now))

    def _is_settled(self, kid: str) -> bool:
        """Tell whether two requests that lie far enough apart found no such key. Forgetting a kid does no harm."""
        first = self._missed.setdefault(kid, self._asked_at)
        if len(self._missed) > _MAX_MISSED:
            self._missed.popitem(last=False)
        return self._asked_at - first >= self._settle_s

    def _start(self) -> None:
        self._fetching = asyncio.create_task(self._refresh())
        self._fetching.add_done_callback(self._fetched)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug: the loop's handler logs it, and the next caller starts another fetch

    async def _refresh(self) -> None:
        asked_at = self._clock()
        try:
            found = await self._fetch()
        except UnavailableError as error:
            self._fail(str(error), log.warning, error.reason)
        except PrivateKeyError as error:
            self._withdraw(
                f"The JWKS address answered with keys that can't be used: {error.detail}", log.error
            )
        else:
            if not found.keys:
                which = f": {_listed(found)}" if found.skipped else ", because it is empty"
                self._withdraw(f"The JWKS address answered with no key that can be used{which}.", log.warning)
                return
            if self._failure:
                log.info("keys are fetched again", count=len(found.keys))
            if found.skipped and found.skipped != self._set.skipped:  # once, not every minute
                log.info("keys of the JWKS are not used", skipped=_listed(found))
            self._set, self._asked_at, self._fetched_at, self._failure = found, asked_at, self._clock(), ""

    def _fail(
        self, failure: str, say: Callable[..., None], reason: Reason = Reason.BACKEND_UNAVAILABLE
    ) -> None:
        if failure != self._failure:  # log a failure once, not every RETRY_S
            say("keys could not be fetched", reason=failure)
        self._failure, self._failure_reason = failure, reason
        self._retry_at = self._clock() + RETRY_S

    def _withdraw(self, failure: str, say: Callable[..., None]) -> None:
        self._set, self._fetched_at = KeySet(), None
        self._fail(failure, say)

    async def _fetch(self) -> KeySet:
        await self._check_host()
        answer = await self._client.get()
        if answer.status != 200:
            passes = answer.status >= 500 or answer.status in TEMPORARY
            raise (_unusable if passes else _fault)(f"answered {answer.status}, not 200")
        try:
            return self._read(strict_json.parse_object(answer.body))
        except PrivateKeyError:
            raise
        except MalformedError as error:
            raise _fault(f"answered with keys that can't be used: {error.detail}") from None
        except ValueError as error:
            raise _fault(f"answered with something that is not JSON: {error}") from None

    async def _check_host(self) -> None:
        """Check that a name for plain http leads to private addresses only: the answer must not cross the internet."""
        if not self._plain_host:
            return
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(
                    self._plain_host, None, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError) as error:
            raise _unusable(f"has a host name that can't be resolved: {type(error).__name__}") from None
        for *_, where in found:
            address = parse_address(str(where[0]).partition("%")[0])
            if address is None or not is_private(address):
                raise _unusable(
                    f"is plain http, and {self._plain_host} is not in a private network: use https"
                )


def _listed(found: KeySet) -> str:
    more = len(found.skipped) - _SKIPPED_LOGGED
    return "; ".join(found.skipped[:_SKIPPED_LOGGED]) + (f"; and {more} more" if more > 0 else "")


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError(Reason.BACKEND_UNAVAILABLE, detail)


def _unusable(what: str) -> UnavailableError:
    return _unavailable(f"The JWKS address {what.rstrip('.')}.")


def _fault(what: str) -> UnavailableError:
    return UnavailableError(Reason.BACKEND_FAULT, str(_unusable(what)))
