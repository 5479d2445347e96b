"""What a role may ask for: role -> endpoint -> patterns, from the settings' [grants]."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relay.core.scope import MAX_CHANNELS, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTerms:
    """An endpoint as the issuer knows it: its audience URL and the patterns that exist there."""

    audience: str
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """`grants` by role and endpoint name."""

    grants: Mapping[str, Mapping[str, tuple[str, ...]]]

    def scope(self, roles: Iterable[str], endpoint: str) -> Scope:
        """Return all that any of the roles grants on an endpoint. Unknown roles grant nothing."""
        patterns = [pattern for role in roles for pattern in self.grants.get(role, {}).get(endpoint, ())]
        return Scope(tuple(dict.fromkeys(patterns)))

    def decide(
        self, roles: Iterable[str], endpoint: str, asked: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Split what was asked for into granted and rejected; asking for nothing special gets all, up to 32."""
        scope = self.scope(roles, endpoint)
        if asked is None:
            return scope.patterns[:MAX_CHANNELS], ()
        return scope.cut(asked)
