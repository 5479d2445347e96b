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
class Grants:
    """What several roles grant together on one endpoint: all their channels, and the most generous options.

    `any` tells whether a role has a grant there. For a service nothing else counts.
    """

    scope: Scope
    options: GrantOptions
    any: bool

    def decide(self, asked: tuple[str, ...] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Cut the channels that were asked for down to the grants. Returns the granted and the rejected ones.

        A pattern that is wider than the grants is in both: what is left of it, and the pattern itself (`Scope.cut`).
        `asked` None asks for everything: the first 32 patterns of the grants.
        """
        if asked is None:
            return self.scope.patterns[:MAX_CHANNELS], ()
        return self.scope.cut(asked)


MAX_SUMS: Final = 1024
"""Combinations of roles, with an endpoint, whose sum is kept. Roles are texts of the backend: there may be many."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The grants of all roles: `grants` by role and by endpoint name. Other grants need another policy."""

    grants: Mapping[str, Mapping[str, Grant]]
    _sums: dict[tuple[tuple[str, ...], str], Grants] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def granting(self, roles: Iterable[str], endpoint: str, channels: Iterable[str]) -> dict[str, list[str]]:
        """Return the roles that grant each channel or pattern by themselves. For a service the only key is ""."""
        grants = {role: found for role in roles if (found := self.sum_of((role,), endpoint)).any}
        by_channel = {
            channel: [role for role, found in grants.items() if found.scope.allows(channel)]
            for channel in channels
        }
        return by_channel or {"": list(grants)}

    def sum_of(self, roles: Iterable[str], endpoint: str) -> Grants:
        """Add up the grants of roles on an endpoint. An unknown role grants nothing.

        Most users have the same few roles, so sums are kept.
        """
        key = (tuple(roles), endpoint)
        if (known := self._sums.get(key)) is not None:
            return known
        found = (self.grants.get(role, {}).get(endpoint) for role in key[0])
        grants = [grant for grant in found if grant is not None]
        if len(self._sums) >= MAX_SUMS:
            self._sums.clear()
        self._sums[key] = made = Grants(
            scope=Scope(tuple(dict.fromkeys(pattern for grant in grants for pattern in grant.channels))),
            options=merged(grant.options for grant in grants),
            any=bool(grants),
        )
        return made
