"""The sections [endpoints] and [grants]. An endpoint is a socket of this relay, or a URL of another service.

Each kind of endpoint is a class of its own, so that the stream can only be made of sockets.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from relay.core.grants import NO_OPTIONS, GrantOptions
from relay.core.messages import Mode
from relay.core.patterns import covers
from relay.settings.base import Section
from relay.settings.sections import Origin, Pattern, matching

_SERVICE_URL = re.compile(r"(https?://[^/]*)(/[A-Za-z0-9._~/-]{0,200})")
_ORIGIN: TypeAdapter[str] = TypeAdapter(Origin)
_PATTERNS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Pattern, ...])


def _service_url(value: str) -> str:
    """Accept a URL in one spelling only: the service compares the token's audience with it byte for byte."""
    parts = _SERVICE_URL.fullmatch(value)
    if parts is None or {"", ".", ".."} & set(parts[2].split("/")[1:-1]) or parts[2].endswith(("/.", "/..")):
        raise ValueError(
            "must be the service's URL like https://reports.example.com/v1/export: http or https, and a path "
            "of letters, digits and . _ ~ - /, without a query"
        )
    _ORIGIN.validate_python(parts[1])
    return value


class History(Section):
    """The messages of a stream channel that are kept for clients that reconnect."""

    messages: int = Field(default=1000, ge=0, le=100_000, description="Messages kept of each stream channel.")
    seconds: int = Field(default=300, ge=0, le=86_400, description="Seconds for which a message is kept.")


class Grant(Section):
    """What a role may ask for on one endpoint: channels, and the options of `relay.core.grants`."""

    channels: tuple[Pattern, ...] = Field(
        min_length=1, description="Channels and patterns, if the grant is a table with options."
    )
    min_interval_ms: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Shortest interval in milliseconds of a subscription of this role; 0: no limit.",
    )


class Endpoint(Section):
    """A path of the stream listener."""

    kind: Literal["socket"] = Field(
        default="socket",
        description="socket: a path of this relay; service: a URL of another service that takes scoped tokens.",
    )
    path: Annotated[
        str, matching(r"/[A-Za-z0-9/_-]{1,128}", 'must be a path like "/ws/prices", without a query')
    ] = Field(description="Path on the stream listener, matched exactly.")
    channels: tuple[Pattern, ...] = Field(
        min_length=1, max_length=32, description="Channels and patterns of this endpoint."
    )
    mode: Mode = Field(
        default=Mode.LATEST,
        description="latest: a slow reader gets the newest value. stream: it gets every message, or is closed (4008).",
    )
    history: History = History()
    min_interval_ms: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Shortest interval in milliseconds of a subscription; 0: no limit.",
    )
    max_age_s: int = Field(
        default=3600,
        ge=1,
        le=86_400,
        description="Age in seconds at which a connection is closed (4001), or up to a tenth earlier.",
    )
    silence_ms: int = Field(
        default=5000, ge=100, description="Age in milliseconds from which a value is marked as stale."
    )


class ServiceEndpoint(Section):
    """A URL of another service, which takes scoped tokens with `relay.verify`."""

    kind: Literal["service"] = Field(description=Endpoint.model_fields["kind"].description)
    url: Annotated[str, AfterValidator(_service_url)] = Field(
        description="URL of a service, exactly as its verifier names it. It is the audience (`aud`) of tokens."
    )


def _endpoint(value: object) -> Endpoint | ServiceEndpoint:
    if isinstance(value, Endpoint | ServiceEndpoint):
        return value
    if not isinstance(value, Mapping):
        return Endpoint.model_validate(value)
    # The kind is checked first: one sentence about a setting of the other kind says more than a list of what is
    # missing in each of two sections.
    kind = value.get("kind", "socket")
    if kind == "service":
        if foreign := sorted(
            value.keys() & (Endpoint.model_fields.keys() - ServiceEndpoint.model_fields.keys())
        ):
            raise ValueError(f"a service has no {' and no '.join(foreign)}: leave it out")
        return ServiceEndpoint.model_validate(value)
    if kind != "socket":
        raise ValueError('kind must be "socket" or "service"')
    if "url" in value:
        raise ValueError('url is only for kind = "service"; give a socket a path')
    return Endpoint.model_validate(value)


GrantValue = tuple[str, ...] | Grant | Literal[True]
"""A grant as it was written: a list of patterns, a table with options, or true for a service."""


def _grant(value: object) -> GrantValue:
    if value is True or value == "true":  # a variable can only hold a text
        return True
    if value is False:
        raise ValueError("must be true, or left out")
    if isinstance(value, Mapping | Grant):
        return Grant.model_validate(value)
    return _PATTERNS.validate_python(value)


AnyEndpoint = Annotated[Endpoint | ServiceEndpoint, BeforeValidator(_endpoint)]
"""An [endpoints.NAME] of either kind."""

AnyGrant = Annotated[GrantValue, BeforeValidator(_grant)]
"""A [grants] ROLE.ENDPOINT."""


def channels_of(grant: GrantValue) -> tuple[str, ...]:
    """Return the channels and patterns of a grant; a service has none."""
    if isinstance(grant, Grant):
        return grant.channels
    return () if grant is True else grant


def options_of(grant: GrantValue) -> GrantOptions:
    """Return the options of a grant. Only a table has options."""
    return GrantOptions.of(grant) if isinstance(grant, Grant) else NO_OPTIONS


def grant_problem(name: str, endpoint: Endpoint | ServiceEndpoint, grant: GrantValue) -> str | None:
    """Return why `grant` does not fit the endpoint `name`, as a part of a sentence; None if it fits."""
    if isinstance(endpoint, ServiceEndpoint):
        return None if grant is True else "a service has no channels; write true"
    if grant is True:
        return 'true is only for services; list the channels of a socket, like ["prices.>"]'
    for pattern in channels_of(grant):
        if not any(covers(own, pattern) for own in endpoint.channels):
            return f"{pattern} lies outside endpoints.{name}.channels; narrow it, or add it there"
    return None
