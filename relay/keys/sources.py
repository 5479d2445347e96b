"""Where a gate gets the keys that it checks tokens with: this process's folder, or the issuer's JWKS.

A port of one method that is given the whole token, because the two differ in what they must know first: a folder's
keys are all here, and of a key elsewhere the name has to be read before it can be asked for.
"""

from collections.abc import Mapping
from typing import Protocol

from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.jws import VerifyKey, parse_compact
from relay.core.tokens import MAX_TOKEN_BYTES, SigningKey
from relay.keys.fetching import JwksClient
from relay.keys.jwks import from_jwks


class KeySource(Protocol):
    """Knows the keys that verify scoped tokens."""

    async def keys_for(self, token: str) -> Mapping[str, VerifyKey]:
        """Return keys by `kid`, the one that `token` names among them if it is known. The token is not judged.

        Raises:
            UnavailableError: if that can't be told now (reason `keys_unavailable`).
        """
        ...

    def is_revoked(self, kid: str) -> bool:
        """Tell whether the key was revoked meanwhile. Never waits; False where that is not known."""
        ...


class FetchedKeys:
    """The keys at `tokens.jwks_url`. End it with `aclose`."""

    def __init__(self, url: str) -> None:
        """Fetch nothing yet.

        Raises:
            ConfigurationError: if `url` is one that keys must not come from.
        """
        self._client = JwksClient(url, read=from_jwks)

    async def keys_for(self, token: str) -> Mapping[str, VerifyKey]:
        """See `KeySource.keys_for`."""
        parsed = parse_compact(token, max_bytes=MAX_TOKEN_BYTES)
        kid = None if isinstance(parsed, Refusal) else parsed.header.get("kid")
        if not isinstance(kid, str):
            return {}
        try:
            key = await self._client.key(kid)
        except UnavailableError as error:
            raise UnavailableError(Reason.KEYS_UNAVAILABLE, f"tokens.jwks_url: {error}") from None
        return {} if key is None else {kid: key}

    def is_revoked(self, _kid: str) -> bool:
        """See `KeySource.is_revoked`. A JWK Set does not tell why a key is gone; its tokens are refused then."""
        return False

    def signing_key(self) -> SigningKey:
        """See `LiveKeys.signing_key`.

        Raises:
            UnavailableError: always: what is published signs nothing.
        """
        raise UnavailableError(Reason.KEYS_UNAVAILABLE, "This process has no private key.")

    async def aclose(self) -> None:
        """Give up a fetch that is under way."""
        await self._client.aclose()
