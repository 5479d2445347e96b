"""The check of a scoped token for one service: signature, claims, origin, single use.

The order is that of the relay's gate: cheap checks first, then signature and claims, then the origin, and single use
last, so that a call from a wrong page does not use up the owner's token. A refusal is a value and not an exception,
also if the store or the issuer can't be reached. A caller that forgets to check the result then has no claims either.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from relay.core import tokens
from relay.core.errors import ConfigurationError, MalformedError, Reason, Refusal, UnavailableError
from relay.core.jws import VerifyKey
from relay.keys.jwks import from_jwks
from relay.keys.sources import FetchedKeys
from relay.verify.single_use import SingleUse


class Verifier:
    """Checks scoped tokens for one URL of a service, each of them once. End it with `aclose`."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: str | Mapping[str, Any],
        single_use: SingleUse,
        origins: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Check the arguments. Keys are fetched at the first token.

        Args:
            issuer: `public.url` of the relay.
            audience: exactly the `url` of the relay's [endpoints.NAME] with `kind = "service"`.
            keys: the URL of the relay's public keys, which is `public.url` and `/.well-known/jwks.json`; or the parsed
                JWK Set, for a service without outgoing connections (it must then be updated at key rotations).
            single_use: the store of used tokens. `aclose` does not close it.
            origins: the browser origins that may call; None for all origins that get tokens from the relay.
            clock: returns Unix seconds.

        Raises:
            ConfigurationError: if an argument is invalid.
        """
        self.audience = _check_audience(audience)
        self._expected = tokens.Expected(
            issuer=_check_issuer(issuer), audience=audience, origin=None, scope=tokens.SERVICE_SCOPE
        )
        if isinstance(origins, str):
            raise ConfigurationError(
                f"origins must be a set of origins, not a string: write {{{origins!r}}}."
            )
        self._origins = None if origins is None else frozenset(origins)
        self._keys = FetchedKeys(keys) if isinstance(keys, str) else _read_keys(keys)
        self._single_use = single_use
        self._clock = clock

    @property
    def own_origin(self) -> str:
        """The origin of the service's own pages."""
        parts = urlsplit(self.audience)
        return f"{parts.scheme}://{parts.netloc}"

    async def verify(self, token: str, *, origin: str) -> tokens.Claims | Refusal:
        """Check a token and use it up. Returns its claims, or a refusal; a refused token is not used up.

        `origin` is the request's Origin header, or "" without one. A token for a browser page is valid only for
        requests with that page's origin. A token without an origin is valid only for requests without one.

        The refusal's reason is for logs. Tell the caller only that the token was refused (`invalid_token` of RFC 6750),
        or "try again" for `Reason.STATE_UNAVAILABLE` and `Reason.KEYS_UNAVAILABLE`.
        """
        if origin and self._origins is not None and origin not in self._origins:
            return Refusal(reason=Reason.ORIGIN_REFUSED)
        try:
            keys = self._keys
            if isinstance(keys, FetchedKeys):
                keys = await keys.keys_for(token)
            now = self._clock()
            verified = tokens.verify(token, keys, now=now, expected=self._expected)
            if isinstance(verified, Refusal):
                return verified
            claims, _ = verified
            if claims.origin != origin:
                return Refusal(reason=Reason.TOKEN_ORIGIN if origin else Reason.ORIGIN_MISSING)
            if claims.session_expires_at is not None and claims.session_expires_at <= now:
                return Refusal(reason=Reason.SESSION_EXPIRED)
            if not await self._single_use.claim(claims.jti, expires_at=claims.expires_at):
                return Refusal(reason=Reason.TOKEN_REPLAYED)
        except UnavailableError as error:
            # the message begins with a setting of the relay, which this service does not have
            return Refusal(reason=error.reason, detail=str(error).removeprefix("tokens.jwks_url: "))
        return claims

    async def aclose(self) -> None:
        """Close the connections to the issuer."""
        if isinstance(self._keys, FetchedKeys):
            await self._keys.aclose()


def _check_issuer(issuer: str) -> str:
    parts = _split(issuer, "issuer")
    if issuer != f"{parts[0]}://{parts[1]}":
        raise ConfigurationError(
            f"issuer must be public.url of the relay, which ends after host and port: {issuer[:120]!r} does not."
        )
    return issuer


def _check_audience(audience: str) -> str:
    if not _split(audience, "audience")[2]:
        raise ConfigurationError(
            "audience must be the url of the relay's [endpoints.NAME] for this service, with its path: "
            f"{audience[:120]!r} has none."
        )
    return audience


def _split(url: str, name: str) -> tuple[str, str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(f"{name} must be an http or https URL, not {url[:120]!r}.")
    return parts.scheme, parts.netloc, parts.path


def _read_keys(document: Mapping[str, Any]) -> Mapping[str, VerifyKey]:
    try:
        found = from_jwks(document)
    except MalformedError as error:
        raise ConfigurationError(f"keys can't be used: {error.detail}") from None
    if not found:
        raise ConfigurationError(
            "keys has no Ed25519 key: pass the document that the relay serves at /.well-known/jwks.json."
        )
    return found
