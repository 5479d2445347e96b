"""Where a process has its keys from, and what the rest of it gets to know of their changes.

An issuer signs with its folder's keys and checks with them too: that is fresher than what it publishes itself. A
stream on its own has no private key; it fetches the public ones from `tokens.jwks_url`, or has them in its folder.
"""

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

    Raises:
        ConfigurationError: if its folder has none that it needs.
    """
    tokens = settings.tokens
    if role is Role.STREAM and tokens.jwks_url is not None:
        return FetchedKeys(tokens.jwks_url)
    keys = WatchedKeys(tokens.keys_dir)
    if role.issues and keys.ring.signing is None:
        raise ConfigurationError(
            f"tokens.keys_dir: {tokens.keys_dir} has no private key; make one with "
            f"`relay keys new --dir {tokens.keys_dir}`."
        )
    return keys


def published_keys(keys: WatchedKeys | FetchedKeys) -> dict[str, Any]:
    """Return the JWK Set of now: the keys that verify, and the one that will sign next."""
    return to_jwks(keys.ring.verify if isinstance(keys, WatchedKeys) else {})


async def watch_keys(keys: WatchedKeys | FetchedKeys, auditor: Auditor, registry: Registry) -> None:
    """Follow the keys' folder for ever. Fetched keys follow their publisher by themselves."""
    if isinstance(keys, WatchedKeys):
        await keys.watch(partial(_changed, auditor, registry))


def _changed(auditor: Auditor, registry: Registry, change: KeyChange) -> None:
    """Record a change of keys. Who came in with a revoked key's token, perhaps a stolen key's, has to come anew."""
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
