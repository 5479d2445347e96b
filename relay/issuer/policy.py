"""The policy: what each role may ask for on each endpoint, from the section [grants] of the settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from relay.core.grants import NO_OPTIONS, GrantOptions, merged
from relay.core.scope import MAX_CHANNELS, Scope
from relay.core.tokens import SCOPE


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTerms:
    """An endpoint as the issuer knows it: its audience URL, its patterns, and the scope of its tokens.

    An endpoint of another service has no channels: a role may call it or not.
    """

    audience: str
    channels: tuple[str, ...]
    scope: str = SCOPE

    @property
    def has_channels(self) -> bool:
        """Whether it is a socket, whose tokens grant channels."""
        return self.scope == SCOPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a role may ask for on one endpoint. The grant of a service has no channels."""

    channels: tuple[str, ...]
    options: GrantOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class _Sum:
    """What several roles grant together on one endpoint. `grants` is False if no role has a grant there."""

    scope: Scope
    options: GrantOptions
    grants: bool


MAX_SUMS: Final = 1024
"""Combinations of roles, with an endpoint, whose sum is kept. Roles are texts of the backend: there may be many."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The grants of all roles: `grants` by role and by endpoint name. Other grants need another policy."""

    grants: Mapping[str, Mapping[str, Grant]]
    _sums: dict[tuple[tuple[str, ...], str], _Sum] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def scope(self, roles: Iterable[str], endpoint: str) -> Scope:
        """Return everything that any of the roles grants on an endpoint. An unknown role grants nothing."""
        return self._sum(roles, endpoint).scope

    def options(self, roles: Iterable[str], endpoint: str) -> GrantOptions:
        """Return the most generous options that the roles have on an endpoint."""
        return self._sum(roles, endpoint).options

    def permits(self, roles: Iterable[str], endpoint: str) -> bool:
        """Tell whether any of the roles has a grant on an endpoint. For a service nothing else counts."""
        return self._sum(roles, endpoint).grants

    def granting(self, roles: Iterable[str], endpoint: str, channels: Iterable[str]) -> dict[str, list[str]]:
        """Return the roles that grant each channel or pattern by themselves. For a service the only key is ""."""
        scopes = {role: self.scope((role,), endpoint) for role in roles if self.permits((role,), endpoint)}
        by_channel = {
            channel: [role for role, scope in scopes.items() if scope.allows(channel)] for channel in channels
        }
        return by_channel or {"": list(scopes)}

    def _sum(self, roles: Iterable[str], endpoint: str) -> _Sum:
        """Add up the grants of roles. Most users have the same few roles, so sums are kept."""
        key = (tuple(roles), endpoint)
        if (known := self._sums.get(key)) is not None:
            return known
        found = (self.grants.get(role, {}).get(endpoint) for role in key[0])
        grants = [grant for grant in found if grant is not None]
        if len(self._sums) >= MAX_SUMS:
            self._sums.clear()
        self._sums[key] = made = _Sum(
            scope=Scope(tuple(dict.fromkeys(pattern for grant in grants for pattern in grant.channels))),
            options=merged(grant.options for grant in grants),
            grants=bool(grants),
        )
        return made

    def decide(
        self, roles: Iterable[str], endpoint: str, asked: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Cut the channels that were asked for down to the grants. Returns the granted and the rejected ones.

        A pattern that is wider than the grants is in both: what is left of it, and the pattern itself (`Scope.cut`).
        `asked` None asks for everything: the first 32 patterns of the grants.
        """
        scope = self.scope(roles, endpoint)
        if asked is None:
            return scope.patterns[:MAX_CHANNELS], ()
        return scope.cut(asked)
