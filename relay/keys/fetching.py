"""Public keys that somebody else publishes: a JWKS address, asked seldom and believed for a while.

Three things must not follow from who asks for which key. A token with a made-up `kid` must not become a request
to the publisher each time: unknown kids share one look a cool-down, and known ones never feel it. A thousand
callers at once must not become a thousand requests: they share one. And a publisher that is away must not log
everybody out: keys that were read are believed for an hour more, and no longer, because a key that was withdrawn
in the meantime would be believed with them.

Keys older than a minute are refreshed behind the callers' backs, so that nobody waits while there is something
fresh enough to answer with.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from relay.core import strict_json
from relay.core.errors import ConfigurationError, MalformedError, Reason, UnavailableError
from relay.core.jws import VerifyKey
from relay.net.http_client import UrlClient

REFRESH_S: Final = 60.0
"""Age at which keys are read anew. Publishers announce a key hours before they use it."""

WAIT_S: Final = 2 * REFRESH_S
"""Age from which a caller waits for the refresh: after an idle hour the first one must not get an old answer."""

STALE_S: Final = 3600.0
"""Age up to which keys are believed while the publisher is away."""

COOL_DOWN_S: Final = 10.0
"""Time between two looks for unknown kids: 6 a minute, whatever strangers send."""

RETRY_S: Final = 2.0
"""Time after a failure before the publisher is asked again: as long as one attempt may take."""

TIMEOUT_S: Final = 2.0

log = structlog.get_logger("relay")


def check_jwks_url(url: str) -> str:
    """Return `url` if keys may be fetched from it: over https, or over http from this machine itself.

    Raises:
        ConfigurationError: otherwise. Whoever can change the answer on its way could sign as anybody.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # the port is read because reading it checks it
    except ValueError:
        raise ConfigurationError("A JWKS URL must be a URL like https://id.example.com/jwks.json.") from None
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError("A JWKS URL must be a URL like https://id.example.com/jwks.json.")
    if parts.username is not None or parts.fragment:
        raise ConfigurationError("A JWKS URL must have no user, no password and no fragment.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError("A JWKS URL must begin with https://; http is for this machine itself only.")
    return url


class JwksClient:
    """The keys at one JWKS address. `read` picks the wanted ones out of the document. End it with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        read: Callable[[Mapping[str, Any]], Mapping[str, VerifyKey]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch nothing yet. `read` raises `MalformedError` for a document that it can't use.

        Raises:
            ConfigurationError: if `url` is one that keys must not come from.
        """
        self._address = UrlClient(check_jwks_url(url), name="The JWKS address", timeout_s=TIMEOUT_S)
        self._read = read
        self._clock = clock
        self._keys: Mapping[str, VerifyKey] = {}
        self._fetched_at: float | None = None
        self._failure = ""
        self._retry_at = -float("inf")
        self._look_at = -float("inf")
        self._flight: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> VerifyKey | None:
        """Return the key called `kid` ("": the one without a name), or None if the publisher has none such.

        Raises:
            UnavailableError: if that can't be told now: no keys, or no fresh ones, could be fetched.
        """
        known = kid in self._keys
        age = self._age()
        if self._is_due(age, known=known):
            self._start()
        # those who have their key wait only where it is old and nothing says that the publisher is away
        if self._flight and (not known or age >= STALE_S or (age >= WAIT_S and not self._failure)):
            await asyncio.wait({self._flight})
        if self._age() >= STALE_S:
            raise UnavailableError(Reason.BACKEND_UNAVAILABLE, self._failure or "No keys were fetched yet.")
        found = self._keys.get(kid)
        if found is None and self._failure:
            # it may be the publisher's newest: "unknown" would end a good session
            raise UnavailableError(Reason.BACKEND_UNAVAILABLE, self._failure)
        return found

    async def aclose(self) -> None:
        """Give up a fetch that is under way and close the connections."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})
        await self._address.aclose()

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _is_due(self, age: float, *, known: bool) -> bool:
        now = self._clock()
        if self._flight is not None or now < self._retry_at:
            return False
        if age >= REFRESH_S:
            return True
        if known or now < self._look_at:
            return False
        self._look_at = now + COOL_DOWN_S
        return True

    def _start(self) -> None:
        self._flight = asyncio.create_task(self._refresh())
        self._flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None
        if not flight.cancelled() and (error := flight.exception()) is not None:
            raise error  # a bug of ours: the loop's handler logs it, and the next caller starts anew

    async def _refresh(self) -> None:
        try:
            keys = await self._fetch()
        except UnavailableError as error:
            if str(error) != self._failure:  # not one line each RETRY_S, for as long as it is away
                log.warning("keys could not be fetched", reason=str(error))
            self._failure = str(error)
            self._retry_at = self._clock() + RETRY_S
        else:
            if self._failure:
                log.info("keys are fetched again", count=len(keys))
            self._keys, self._fetched_at, self._failure = keys, self._clock(), ""

    async def _fetch(self) -> Mapping[str, VerifyKey]:
        answer = await self._address.get()
        if answer.status != 200:
            raise _unusable(f"answered {answer.status}, not 200")
        try:
            return self._read(strict_json.parse_object(answer.body))
        except MalformedError as error:
            raise _unusable(f"answered with keys that can't be used: {error.detail}") from None
        except ValueError as error:
            raise _unusable(f"answered with something else than JSON: {error}") from None


def _unusable(what: str) -> UnavailableError:
    return UnavailableError(Reason.BACKEND_UNAVAILABLE, f"The JWKS address {what.rstrip('.')}.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
