"""The keys at a JWKS URL, fetched rarely and cached.

- Callers at the same time share one request.
- Keys older than a minute are refreshed in the background. Callers wait only if the cached keys are too old.
- Tokens with invented kids can't cause a request each: unknown kids share one request in `COOL_DOWN_S`.
- While the publisher is unavailable, cached keys stay valid for an hour, so that sessions do not all end. They are not
  valid for longer, because the publisher may have withdrawn a key.
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
"""Age in seconds at which keys are fetched again. Publishers announce a key hours before they use it."""

WAIT_S: Final = 2 * REFRESH_S
"""Age from which a caller waits for the refresh: after an idle hour the first caller must not get an old answer."""

STALE_S: Final = 3600.0
"""Age up to which keys are valid while the publisher is unavailable."""

COOL_DOWN_S: Final = 10.0
"""Seconds between two requests for unknown kids: at most 6 requests a minute."""

RETRY_S: Final = 2.0
"""Seconds between a failure and the next request: as long as one attempt may take."""

TIMEOUT_S: Final = 2.0

log = structlog.get_logger("relay")


def check_jwks_url(url: str) -> str:
    """Return `url` if keys may be fetched from it: by https, or by http from this machine.

    Raises:
        ConfigurationError: otherwise. An attacker who can change the answer on the network could sign any token.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        raise ConfigurationError("A JWKS URL must be a URL like https://id.example.com/jwks.json.") from None
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError("A JWKS URL must be a URL like https://id.example.com/jwks.json.")
    if parts.username is not None or parts.fragment:
        raise ConfigurationError("A JWKS URL must have no user, no password and no fragment.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError("A JWKS URL must begin with https://; http is for this machine only.")
    return url


class JwksClient:
    """The keys at one JWKS URL. End it with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        read: Callable[[Mapping[str, Any]], Mapping[str, VerifyKey]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch nothing yet. `read` returns the wanted keys of a document, or raises `MalformedError`.

        Raises:
            ConfigurationError: if keys may not be fetched from `url`.
        """
        self._client = UrlClient(check_jwks_url(url), name="The JWKS address", timeout_s=TIMEOUT_S)
        self._read = read
        self._clock = clock
        self._keys: Mapping[str, VerifyKey] = {}
        self._fetched_at: float | None = None
        self._failure = ""
        self._retry_at = -float("inf")
        self._unknown_kid_at = -float("inf")
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> VerifyKey | None:
        """Return the key with this `kid` ("": the key without a kid), or None if the publisher does not have it.

        Raises:
            UnavailableError: if no keys, or no fresh keys, could be fetched.
        """
        known = kid in self._keys
        age = self._age()
        if self._is_due(age, known=known):
            self._start()
        # a caller whose key is cached waits only if it is old, and if the last request did not fail
        if self._fetching and (not known or age >= STALE_S or (age >= WAIT_S and not self._failure)):
            await asyncio.wait({self._fetching})
        if self._age() >= STALE_S:
            raise UnavailableError(Reason.BACKEND_UNAVAILABLE, self._failure or "No keys were fetched yet.")
        found = self._keys.get(kid)
        if found is None and self._failure:
            # it may be a new key of the publisher: None would end a good session
            raise UnavailableError(Reason.BACKEND_UNAVAILABLE, self._failure)
        return found

    async def aclose(self) -> None:
        """Cancel a running fetch and close the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
        await self._client.aclose()

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _is_due(self, age: float, *, known: bool) -> bool:
        now = self._clock()
        if self._fetching is not None or now < self._retry_at:
            return False
        if age >= REFRESH_S:
            return True
        if known or now < self._unknown_kid_at:
            return False
        self._unknown_kid_at = now + COOL_DOWN_S
        return True

    def _start(self) -> None:
        self._fetching = asyncio.create_task(self._refresh())
        self._fetching.add_done_callback(self._fetched)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug: the loop's handler logs it, and the next caller starts another fetch

    async def _refresh(self) -> None:
        try:
            keys = await self._fetch()
        except UnavailableError as error:
            if str(error) != self._failure:  # log a failure once, not every RETRY_S
                log.warning("keys could not be fetched", reason=str(error))
            self._failure = str(error)
            self._retry_at = self._clock() + RETRY_S
        else:
            if self._failure:
                log.info("keys are fetched again", count=len(keys))
            self._keys, self._fetched_at, self._failure = keys, self._clock(), ""

    async def _fetch(self) -> Mapping[str, VerifyKey]:
        answer = await self._client.get()
        if answer.status != 200:
            raise _unusable(f"answered {answer.status}, not 200")
        try:
            return self._read(strict_json.parse_object(answer.body))
        except MalformedError as error:
            raise _unusable(f"answered with keys that can't be used: {error.detail}") from None
        except ValueError as error:
            raise _unusable(f"answered with something that is not JSON: {error}") from None


def _unusable(what: str) -> UnavailableError:
    return UnavailableError(Reason.BACKEND_UNAVAILABLE, f"The JWKS address {what.rstrip('.')}.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
