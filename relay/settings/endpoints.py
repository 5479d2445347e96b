"""The sections [endpoints] and [grants] by their kind: a socket of this relay, or a URL of another service.

The kind is looked at first, so that a setting of the other kind gets one sentence that says so, and not a list of
what each of two sections misses. Each kind is a class of its own: the stream is made of sockets only, and can't
come to serve what is a service.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from relay.core.patterns import covers
from relay.settings.sections import Endpoint, Grant, Origin, Pattern, Section

_SERVICE_URL = re.compile(r"(https?://[^/]*)(/[A-Za-z0-9._~/-]{0,200})")
_ORIGIN: TypeAdapter[str] = TypeAdapter(Origin)
_PATTERNS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Pattern, ...])


def _service_url(value: str) -> str:
    """Take a URL in its one spelling: the service compares the token's audience with it byte for byte."""
    parts = _SERVICE_URL.fullmatch(value)
    if parts is None or {"", ".", ".."} & set(parts[2].split("/")[1:-1]) or parts[2].endswith(("/.", "/..")):
        raise ValueError(
            "must be the service's URL like https://reports.example.com/v1/export: http or https, and a path "
            "of letters, digits and . _ ~ - /, without a query"
        )
    _ORIGIN.validate_python(parts[1])
    return value


class ServiceEndpoint(Section):
    """A URL of another service, which takes scoped tokens with `relay.verify`."""

    kind: Literal["service"] = Field(description=Endpoint.model_fields["kind"].description)
    url: Annotated[str, AfterValidator(_service_url)] = Field(
        description="kind = \"service\": the service's URL, exactly as its verifier names it; the token's audience."
    )


def _endpoint(value: object) -> Endpoint | ServiceEndpoint:
    if isinstance(value, Endpoint | ServiceEndpoint):
        return value
    if not isinstance(value, Mapping):
        return Endpoint.model_validate(value)
    kind = value.get("kind", "socket")
    if kind == "service":
        if foreign := sorted(
            value.keys() & (Endpoint.model_fields.keys() - ServiceEndpoint.model_fields.keys())
        ):
            raise ValueError(f"a service has no {' and no '.join(foreign)}: leave that out")
        return ServiceEndpoint.model_validate(value)
    if kind != "socket":
        raise ValueError('kind must be "socket" or "service"')
    if "url" in value:
        raise ValueError('url is for kind = "service"; a socket has a path below public.stream_url')
    return Endpoint.model_validate(value)


def _grant(value: object) -> tuple[str, ...] | Grant | Literal[True]:
    if value is True or value == "true":  # in a variable everything is a text
        return True
    if value is False:
        raise ValueError("must be true, or left out")
    if isinstance(value, Mapping | Grant):
        return Grant.model_validate(value)
    return _PATTERNS.validate_python(value)


AnyEndpoint = Annotated[Endpoint | ServiceEndpoint, BeforeValidator(_endpoint)]
"""An [endpoints.NAME] of either kind."""

AnyGrant = Annotated[tuple[str, ...] | Grant | Literal[True], BeforeValidator(_grant)]
"""What a role may ask for: channels of a socket, with a fastest interval or without; of a service, true."""


def misfit(
    name: str, endpoint: Endpoint | ServiceEndpoint, grant: tuple[str, ...] | Grant | Literal[True]
) -> str | None:
    """Say why `grant` can't be one on the endpoint `name`, as a part of a sentence; None if it can."""
    if isinstance(endpoint, ServiceEndpoint):
        return None if grant is True else "a service has no channels: write true"
    if grant is True:
        return 'true is for services; a socket\'s channels are listed, like ["prices.>"]'
    for pattern in grant.channels if isinstance(grant, Grant) else grant:
        if not any(covers(own, pattern) for own in endpoint.channels):
            return f"{pattern} lies outside endpoints.{name}.channels"
    return None
