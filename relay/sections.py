"""The sections of relay.toml: every key with its type, its default, its bounds and its one sentence.

What a value must be is said here and checked at start, so that no other module meets a setting that can't work.
Origins and URLs are taken only as browsers send them, because they are compared byte for byte later. How the
sections are read and put together is in `relay.config`.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from relay.core.channels import check_pattern
from relay.core.errors import MalformedError
from relay.core.messages import Mode

_AUTHORITY = re.compile(
    r"(?P<host>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)


def _url(*schemes: str) -> AfterValidator:
    """Take an origin exactly as browsers send it (RFC 6454 §6.2): it is compared byte for byte."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)

    def check(value: str) -> str:
        scheme, _, rest = value.partition("://")
        if value != value.lower():
            raise ValueError("must be in lower case, as browsers send it")
        if scheme not in schemes or not rest:
            raise ValueError(f"must be a URL that starts with {wanted} and names a host")
        if any(character in rest for character in "/?#@"):
            raise ValueError("must end after host and port: no path, no slash, no query, no user")
        parts = _AUTHORITY.fullmatch(rest)
        if parts is None or int(parts["port"] or 0) > 65535:
            raise ValueError(
                "must be a host name in ASCII (xn--… for others) or an address, and a port if need be"
            )
        default = {"http": "80", "https": "443", "ws": "80", "wss": "443"}[scheme]
        if parts["port"] == default:
            raise ValueError(f"must leave out :{default}, as browsers do")
        return value

    return AfterValidator(check)


def _pattern(value: str) -> str:
    try:
        return check_pattern(value)
    except MalformedError as error:
        raise ValueError(str(error)) from None


def _listen(value: str) -> str:
    if not re.fullmatch(r"([^\s:\[\]]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}", value, re.ASCII) or (
        int(value.rpartition(":")[2]) > 65535
    ):
        raise ValueError('must be "host:port", like "127.0.0.1:8000" or "[::]:8000"')
    return value


def _rate(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", value):
        raise ValueError('must be "count/unit" with second, minute, hour or day, like "30/minute"')
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"must be an address or a network like 10.0.0.0/8: {error}") from None


Origin = Annotated[str, _url("http", "https")]
StreamOrigin = Annotated[str, _url("ws", "wss")]
Pattern = Annotated[str, AfterValidator(_pattern)]
Listen = Annotated[str, AfterValidator(_listen)]
Rate = Annotated[str, AfterValidator(_rate)]
Network = Annotated[str, AfterValidator(_network)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
CookieName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values don't change after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Public(Section):
    """How browsers see the relay."""

    url: Origin = Field(
        description="The application's origin, which serves the issuer too; the tokens' issuer."
    )
    stream_url: StreamOrigin = Field(
        description="Origin of the WebSocket listener; tokens' audience begins with it."
    )
    allowed_origins: tuple[Origin, ...] = Field(
        default=(), description="Browser origins that may open sockets. Default: public.url alone."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Proxies whose X-Forwarded-For is believed, as addresses or networks."
    )


class ListenSection(Section):
    """Where the three listeners are bound. Port 0 takes a free one."""

    http: Listen = Field(
        default="0.0.0.0:8000", description="Public HTTP: issuer, log-in, JWKS, browser client."
    )  # made to be public
    stream: Listen = Field(default="0.0.0.0:8001", description="Public WebSocket.")  # made to be public
    internal: Listen = Field(default="127.0.0.1:8002", description="Internal HTTP: publishing, health.")
    internal_hosts: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.1", "[::1]"),
        description="Host names by which the internal listener may be called; others are refused (DNS rebinding).",
    )


class ClaimNames(Section):
    """Which claims of the session's JWT mean what."""

    subject: str = Field(default="sub", description="Claim that names the user.")
    roles: str = Field(default="roles", description="Claim with the user's roles: a text or a list of texts.")
    session: str = Field(default="sid", description="Claim with the session's id, if the backend sets one.")


class Signed(Section):
    """The session verifier `signed`: the cookie holds a JWT whose key is known here."""

    algorithm: Literal[
        "HS256",
        "HS384",
        "HS512",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
    ] = Field(description="The one algorithm that is accepted.")
    secret: SecretStr | None = Field(
        default=None, description="The shared secret of HS256 (32 bytes or more), HS384 (48) or HS512 (64)."
    )
    public_key: Path | None = Field(default=None, description="PEM file with the public key of the others.")
    issuer: str | None = Field(default=None, description="Required iss.")
    audience: str | None = Field(default=None, description="Required aud. Tells a session from other JWTs.")
    typ: str | None = Field(
        default=None, description="Required typ in the header. Tells a session from other JWTs."
    )
    require: dict[str, str] = Field(
        default={},
        description="Claims with required values. Tell a session from other JWTs under the same key.",
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        symmetric = self.algorithm.startswith("HS")
        if symmetric != (self.secret is not None) or symmetric == (self.public_key is not None):
            wanted = "secret, and no public_key" if symmetric else "public_key, and no secret"
            raise ValueError(f"{self.algorithm} needs {wanted}")
        return self


class SessionSection(Section):
    """Who is behind a cookie."""

    cookie: CookieName = Field(default="__Host-access-token", description="Name of the session cookie.")
    verifier: Literal["signed"] = Field(default="signed", description="How a session is checked.")
    ref_key: SecretStr = Field(
        description="Keys the session references in tokens and logs; the same on every node."
    )
    claims: ClaimNames = ClaimNames()
    signed: Signed | None = None
    max_s: int = Field(
        default=604_800,
        ge=60,
        description="How long a log-in can last at most; a revocation is kept that long.",
    )

    @field_validator("ref_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters; `openssl rand -hex 32` makes one")
        return value

    @model_validator(mode="after")
    def _has_verifier(self) -> Self:
        if self.signed is None:
            raise ValueError("verifier = 'signed' needs session.signed = { algorithm = …, … }")
        return self


class Tokens(Section):
    """Scoped tokens."""

    ttl_s: int = Field(default=30, ge=1, le=30, description="Seconds from issue to expiry.")
    keys_dir: Path = Field(
        default=Path("keys"), description="Folder of the signing keys (`relay keys new --dir …`)."
    )
    transports: tuple[Literal["subprotocol", "query", "first_message"], ...] = Field(
        default=("subprotocol", "query", "first_message"),
        min_length=1,
        description="Ways in which a token may come.",
    )
    default_endpoint: Name = Field(
        default="prices", description="Endpoint of a token request that names none."
    )


class History(Section):
    """How much of a stream channel is kept, so that a client that comes back misses nothing."""

    messages: int = Field(default=1000, ge=0, le=100_000, description="Messages kept of each stream channel.")
    seconds: int = Field(default=300, ge=0, le=86_400, description="Age at which they are let go.")


class Grant(Section):
    """What a role may ask for on one endpoint, where a list of patterns does not say enough."""

    channels: tuple[Pattern, ...] = Field(min_length=1, description="Channels and patterns.")
    min_interval_ms: int = Field(default=0, ge=0, le=1000, description="The fastest interval.")


class Endpoint(Section):
    """One thing to connect to."""

    path: str = Field(
        pattern=r"^/[A-Za-z0-9/_-]{1,128}$", description="Path on the stream listener, matched exactly."
    )
    channels: tuple[Pattern, ...] = Field(
        min_length=1, max_length=32, description="Channels that exist here."
    )
    mode: Mode = Field(
        default=Mode.LATEST,
        description="latest: a slow reader gets the newest value; stream: every message or an honest end (4008).",
    )
    history: History = History()
    min_interval_ms: int = Field(
        default=0, ge=0, le=1000, description="The fastest interval that a subscription may have here."
    )
    max_age_s: int = Field(
        default=3600, ge=1, le=86_400, description="A connection is closed (4001) at this age."
    )
    silence_ms: int = Field(default=5000, ge=100, description="A value older than this is called stale.")


class Publisher(Section):
    """A backend team that may publish."""

    secret_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(
        min_length=1, max_length=2, description="SHA-256 of the key's secret, in hex; two during a rotation."
    )
    channels: tuple[Pattern, ...] = Field(min_length=1, description="Channels that the key may publish to.")


class Csrf(Section):
    """Where requests with a cookie may come from."""

    trusted_origins: tuple[Origin, ...] = Field(
        default=(), description="Origins beside public.url that may call."
    )
    require_header: bool = Field(default=False, description="Demand the header X-Relay-CSRF: 1 always.")


class Bff(Section):
    """Log-in and log-out against a backend. Without `backend` the relay has no such routes."""

    backend: Origin | None = Field(default=None, description="Origin of the backend that checks credentials.")
    login_path: str = Field(
        default="/auth/login", pattern=r"^/[A-Za-z0-9/_-]*$", description="Its log-in route."
    )
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="How long the backend may take.")
    refresh_cookie: CookieName = Field(
        default="__Host-refresh-token", description="Name of the refresh cookie."
    )
    access_max_age_s: int = Field(default=900, ge=60, description="Life of the session cookie.")
    refresh_max_age_s: int = Field(default=604_800, ge=60, description="Life of the refresh cookie.")


class Engine(Section):
    """What is kept between connections."""

    state_path: Path = Field(
        default=Path("relay-state.db"), description="SQLite file of used tokens and revocations."
    )


class Limits(Section):
    """How much of everything."""

    tokens_per_session: Rate = Field(default="30/minute", description="Token requests of one session.")
    tokens_per_address: Rate = Field(
        default="600/minute", description="Token requests and log-ins of one address."
    )
    connections_per_session: int = Field(default=10, ge=1, description="Connections of one session.")
    over: Literal["replace", "refuse"] = Field(
        default="replace", description="One more replaces the oldest (4504), or is refused (4503)."
    )
    drain_s: float = Field(
        default=8.0, ge=0, le=300, description="Seconds over which SIGTERM sends connections away."
    )
    unauthenticated_per_address: int = Field(
        default=100, ge=1, description="Connections without a token yet."
    )
    channels: int = Field(default=100_000, ge=1, description="Channels that publishers may create.")


class Audit(Section):
    """The audit log."""

    path: Path = Field(
        default=Path("audit.jsonl"), description="File of the audit log, one JSON object a line."
    )


class Log(Section):
    """The process's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level."
    )
    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto: text on a terminal, else JSON."
    )
