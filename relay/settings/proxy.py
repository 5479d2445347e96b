"""The section [bff.proxy]: which calls of pages go on to the backend, and what its answers may hold."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from relay.bff.proxy.field_filter import FieldFilter
from relay.bff.proxy.headers import check_request_name, check_response_name
from relay.bff.proxy.paths import loosened
from relay.core.errors import ConfigurationError
from relay.settings.base import Section
from relay.settings.bff import Bff
from relay.settings.sections import CookieName

_PREFIX = re.compile(r"/|(?:/[A-Za-z0-9._~-]+)+", re.ASCII)


def _prefix(value: str) -> str:
    if not _PREFIX.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError('must be a path of the backend like "/users", without a slash at its end')
    return value


def _field(value: str) -> str:
    try:
        FieldFilter([value])
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


Prefix = Annotated[str, AfterValidator(_prefix)]


class ProxyRoute(Section):
    """Calls whose path begins with one prefix."""

    methods: tuple[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], ...] = Field(
        default=("GET",), min_length=1, description="Methods that go on. HEAD comes with GET."
    )
    strip: tuple[Annotated[str, AfterValidator(_field)], ...] = Field(
        default=(),
        description='Fields that are removed from its answers: a name at every depth, or a path like "users.*.score".',
    )


class Proxy(Section):
    """Calls of pages that go on to the backend with the session's access token. Without routes there are none."""

    routes: dict[Prefix, ProxyRoute] = Field(
        default={}, description="Prefixes of paths; the longest that fits counts."
    )
    request_headers: tuple[Annotated[str, AfterValidator(check_request_name)], ...] = Field(
        default=(), description="Further request headers that go on to the backend."
    )
    response_headers: tuple[Annotated[str, AfterValidator(check_response_name)], ...] = Field(
        default=(), description="Further response headers that go on to the browser."
    )
    request_cookies: tuple[CookieName, ...] = Field(
        default=(), description="Cookies that go on to the backend; never those of the session."
    )
    response_cookies: tuple[CookieName, ...] = Field(
        default=(), description="Cookies that the backend may set; never those of the session."
    )
    max_body_bytes: int = Field(
        default=16 << 20, ge=0, le=1 << 40, description="Longest body of a request; a longer one is 413."
    )
    inspect_bytes: int = Field(
        default=1 << 20,
        ge=1024,
        le=64 << 20,
        description="JSON answers up to this size are searched for the session's tokens before their first byte goes "
        "out. Longer ones are searched while they go out.",
    )
    filter_bytes: int = Field(
        default=4 << 20,
        ge=1024,
        le=64 << 20,
        description="Longest answer of a route with `strip`; a longer one is 502.",
    )
    answer_s: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds that the backend may take to begin its answer."
    )
    idle_s: float = Field(
        default=60.0, gt=0, le=3600, description="Seconds between two pieces of a body, in either direction."
    )
    connections: int = Field(
        default=500, ge=1, le=10_000, description="Open connections to the backend. A stream keeps one."
    )
    keepalive_s: float = Field(
        default=4.0,
        ge=0,
        le=300,
        description="Seconds for which an idle connection is kept: shorter than the backend keeps it.",
    )
    calls_per_session: int = Field(
        default=32, ge=1, le=10_000, description="Calls of one session that are open at one time."
    )


class BffSection(Bff):
    """The section [bff] with the proxy."""

    proxy: Proxy = Proxy()

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        routes = self.proxy.routes
        if routes and self.backend is None:
            raise ValueError("proxy.routes needs bff.backend: the origin of the backend that calls go on to")
        if len({loosened(prefix) for prefix in routes}) != len(routes):
            raise ValueError(
                "proxy.routes has two prefixes that differ in their letter case only; remove one"
            )
        return self
