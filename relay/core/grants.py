"""The options of a grant: what a role may do with its channels.

An option is one field of `GrantOptions`. The field says which value a user with several roles gets, and which value
holds where the endpoint has the same option. Everything between the settings and the connection passes the object
through: the issuer merges the grants of a user's roles and writes the result into the token, the gate reads it from
the token, and the connection narrows it by the endpoint's options.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Final

Pick = Callable[[int, int], int]
"""Picks one of two values of an option."""


def _option(*, unlimited: int, of_roles: Pick, with_endpoint: Pick, meaning: str) -> Any:
    """Return a field of `GrantOptions`, a whole number.

    Args:
        unlimited: The value that limits nothing. It is the default, and a token does not carry it.
        of_roles: Picks the value of a user whose roles differ: the more generous one.
        with_endpoint: Picks between the token's value and the endpoint's: the stricter one.
        meaning: What the claim means, for `relay token inspect`.
    """
    return field(
        default=unlimited,
        metadata={"of_roles": of_roles, "with_endpoint": with_endpoint, "meaning": meaning},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantOptions:
    """The options of a grant, of a token or of an endpoint. The names are those of the settings and of the claims."""

    min_interval_ms: int = _option(
        unlimited=0,
        of_roles=min,
        with_endpoint=max,
        meaning="milliseconds between two values of a channel at least",
    )

    @classmethod
    def of(cls, section: object) -> "GrantOptions":
        """Return the options that a section of the settings has as attributes. Others limit nothing."""
        return cls(
            **{one.name: getattr(section, one.name) for one in fields(cls) if hasattr(section, one.name)}
        )

    @classmethod
    def from_claims(cls, payload: Mapping[str, Any]) -> "GrantOptions":
        """Return the options that a token carries. Its claims were checked before."""
        return cls(**{name: payload[name] for name in cls.__dataclass_fields__.keys() & payload.keys()})

    def to_claims(self) -> dict[str, int]:
        """Return the token's claims. An option that limits nothing is left out."""
        if self == NO_OPTIONS:  # as nearly all grants
            return {}
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != one.default
        }

    def narrowed(self, endpoint: "GrantOptions") -> "GrantOptions":
        """Return the stricter of each option, the token's and the endpoint's."""
        return _picked("with_endpoint", self, endpoint)


def merged(grants: Iterable[GrantOptions]) -> GrantOptions:
    """Return the most generous of each option, for a user whose roles have these grants. Without one: no limit."""
    found, *others = list(grants) or [NO_OPTIONS]
    for other in others:
        found = _picked("of_roles", found, other)
    return found


@lru_cache(maxsize=256)  # for each connection, and nearly always the same two
def _picked(rule: str, one: GrantOptions, other: GrantOptions) -> GrantOptions:
    return type(one)(
        **{
            option.name: option.metadata[rule](getattr(one, option.name), getattr(other, option.name))
            for option in fields(one)
        }
    )


NO_OPTIONS: Final = GrantOptions()
OPTION_CLAIMS: Final = {option.name: str(option.metadata["meaning"]) for option in fields(GrantOptions)}
"""The claims of a token that are options, with their meaning."""
