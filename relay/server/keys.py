"""The keys of a process: where they come from, and what happens when they change."""

from functools import partial
from typing import Any

from relay.audit.base import Auditor
from relay.core.errors import ConfigurationError
from relay.core.events import Action, Event
from relay.core.revocations import Kind, Target
from relay.keys.jwks import to_jwks
from relay.keys.sources import FetchedKeys
from relay.keys.watched_folder import KeyChange, WatchedKeys
from relay.server.process_roles import Role
from relay.settings.load import Settings
from relay.stream.registry import Registry


def key_source(settings: Settings, role: Role) -> WatchedKeys | FetchedKeys:
    """Return the keys of a process of this role. Nothing is fetched yet.

    An issuer signs and checks with the keys of its folder, which are fresher than the ones that it publishes. A stream
    on its own has no private key: it fetches the public keys from `tokens.jwks_url`, or has them in its folder.

    Raises:
        ConfigurationError: if the process issues tokens and its folder has no private key.
    """
    tokens = settings.tokens
    if role is Role.INGEST:  # it sees no token, and never fetches
        return FetchedKeys(
            tokens.jwks_url or f"{settings.public.url}/.well-known/jwks.json", private_http=True
        )
    if role is Role.STREAM and tokens.jwks_url is not None:
        return FetchedKeys(tokens.jwks_url, private_http=tokens.jwks_private_http)
    keys = WatchedKeys(tokens.keys_dir)
    if role.issues and keys.ring.signing is None:
        raise ConfigurationError(
            f"tokens.keys_dir: {tokens.keys_dir} has no private key; make one with "
            f"`relay keys new --dir {tokens.keys_dir}`."
        )
    return keys


def published_keys(keys: WatchedKeys | FetchedKeys) -> dict[str, Any]:
    """Return the current JWK Set: the keys that verify, and the key that will sign next."""
    return to_jwks(keys.ring.verify if isinstance(keys, WatchedKeys) else {})


async def watch_keys(keys: WatchedKeys | FetchedKeys, auditor: Auditor, registry: Registry) -> None:
    """Follow changes of the keys' folder until cancelled. Fetched keys are refreshed elsewhere (`FetchedKeys`)."""
    if isinstance(keys, WatchedKeys):
        await keys.watch(partial(_changed, auditor, registry))


def _changed(auditor: Auditor, registry: Registry, change: KeyChange) -> None:
    """Record a change of keys, and close the connections whose token a revoked key has signed: it may be stolen."""
    revoked = [Target(kind=Kind.KEY, name=kid) for kid, why in change.dropped.items() if why == "revoked"]
    closed = sum(registry.end(target) for target in revoked)
    auditor.note(
        Event(
            action=Action.KEY_ROTATED,
            relay={
                "keys": {
                    "signing": change.signing,
                    "published": list(change.published),
                    "dropped": dict(change.dropped),
                },
                "connections": closed,
            },
        )
    )
