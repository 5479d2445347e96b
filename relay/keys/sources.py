"""The port for the keys that check scoped tokens, and its adapter for the issuer's JWKS.

The other adapter is a folder of keys (`relay.keys.watched_folder`).
"""

from collections.abc import Mapping
from typing import Protocol

from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.jwk_set import NoKey
from relay.core.jws import VerifyKey, parse_compact
from relay.core.tokens import MAX_TOKEN_BYTES, SigningKey
from relay.keys.jwks import read_published
from relay.keys.jwks_client import JwksClient


class KeySource(Protocol):
    """The keys that verify scoped tokens.

    `keys_for` gets the whole token: an adapter that fetches keys must first read the kid.
    """

    async def keys_for(self, token: str, *, caller: str = "") -> Mapping[str, VerifyKey]:
        """Return keys by `kid`, with the key of `token` among them if it is known. The token is not checked.

        `caller` is the client's address, for a budget: a kid that nobody knows may cost a request.

        Raises:
            UnavailableError: if the keys can't be fetched now (reason `keys_unavailable`).
        """
        ...

    def is_revoked(self, kid: str) -> bool:
        """Tell whether the key is revoked. Never waits. Returns False if it is not known."""
        ...


class FetchedKeys:
    """The keys at `tokens.jwks_url`. End it with `aclose`."""

    def __init__(self, url: str, *, private_http: bool = False) -> None:
        """Fetch nothing yet. `private_http`: see `relay.keys.jwks_url.check_jwks_url`.

        Raises:
            ConfigurationError: if keys may not be fetched from `url`.
        """
        self._client = JwksClient(url, read=read_published, private_http=private_http)

    async def keys_for(self, token: str, *, caller: str = "") -> Mapping[str, VerifyKey]:
        """See `KeySource.keys_for`."""
        parsed = parse_compact(token, max_bytes=MAX_TOKEN_BYTES)
        kid = None if isinstance(parsed, Refusal) else parsed.header.get("kid")
        if not isinstance(kid, str):
            return {}
        try:
            key = await self._client.key(kid, caller=caller)
        except UnavailableError as error:
            raise UnavailableError(Reason.KEYS_UNAVAILABLE, f"tokens.jwks_url: {error}") from None
        return {} if isinstance(key, NoKey) else {kid: key}

    def is_revoked(self, _kid: str) -> bool:
        """See `KeySource.is_revoked`. A JWK Set does not tell why a key is gone. Its tokens are refused anyway."""
        return False

    def signing_key(self) -> SigningKey:
        """See `WatchedKeys.signing_key`.

        Raises:
            UnavailableError: always, because a JWKS has no private keys.
        """
        raise UnavailableError(Reason.KEYS_UNAVAILABLE, "This process has no private key.")

    async def aclose(self) -> None:
        """Cancel a running fetch and close the connections."""
        await self._client.aclose()
