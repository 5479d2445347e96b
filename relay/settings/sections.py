"""The sections of relay.toml: every key with its type, its default, its bounds and its meaning in one sentence.

Each value is checked here at the start, so that no other module meets a setting that can't work. [endpoints] and
[grants] are in `relay.settings.endpoints`, [session] is in `relay.settings.sessions`, [bff] in `relay.settings.bff`.
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from relay.core.errors import MalformedError
from relay.core.patterns import check_pattern
from relay.core.tokens import MAX_LIFETIME_S
from relay.keys.api_keys import May
from relay.keys.rotation import PUBLISH_BEFORE_SIGN_S
from relay.settings import audit_log
from relay.settings.base import Section, checked_jwks_url

_AUTHORITY = re.compile(
    r"(?P<host>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)


def _url(*schemes: str) -> Callable[[str], str]:
    """Return a check of an origin as browsers send it (RFC 6454 §6.2): it is compared byte for byte later."""
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
                "must be a host name in ASCII (xn--… for others) or an address, with a port if it is not the default"
            )
        default = {"http": "80", "https": "443", "ws": "80", "wss": "443"}[scheme]
        if parts["port"] == default:
            raise ValueError(f"must leave out :{default}, as browsers do")
        return value

    return check


_web_origin = _url("http", "https")

_APPLICATION = re.compile(
    r"[a-z][a-z0-9+.-]*://[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?(?::[1-9][0-9]{0,4})?"
)
_NO_ORIGINS = frozenset({"about", "blob", "data", "file", "ftp", "javascript", "ws", "wss"})
"""Schemes that no page has as its origin. A file:// page sends `Origin: null`, as each sandboxed page does."""


def _page_origin(value: str) -> str:
    """Accept the origin of a web page, or of an application or extension, such as capacitor://localhost.

    The host of a browser extension may have upper case (Safari), so only the scheme is compared in lower case.
    """
    scheme = value.partition("://")[0]
    if scheme in ("http", "https") or not _APPLICATION.fullmatch(value):
        return _web_origin(value)
    if scheme in _NO_ORIGINS:
        raise ValueError(
            f"{scheme}:// is no origin of a page; write https://… or an application's, like tauri://localhost"
        )
    return value


def matching(pattern: str, text: str) -> AfterValidator:
    """Return a check that a text matches `pattern` as a whole. `text` tells what it must be."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(text)
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


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"must be an address or a network like 10.0.0.0/8: {error}") from None


Origin = Annotated[str, AfterValidator(_web_origin)]
PageOrigin = Annotated[str, AfterValidator(_page_origin)]
StreamOrigin = Annotated[str, AfterValidator(_url("ws", "wss"))]
Pattern = Annotated[str, AfterValidator(_pattern)]
Listen = Annotated[str, AfterValidator(_listen)]
Rate = Annotated[
    str,
    matching(
        r"[1-9][0-9]{0,8}/(second|minute|hour|day)",
        'must be "count/unit" with second, minute, hour or day, like "30/minute"',
    ),
]
Network = Annotated[str, AfterValidator(_network)]
Sha256 = Annotated[
    str,
    matching(
        r"[0-9a-f]{64}",
        "must be 64 hex digits in lower case, as `relay keys publisher` and `relay keys operator` print them",
    ),
]
Name = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9_-]{0,31}",
        "must have 1 to 32 of the characters a-z, 0-9, _ and -, and begin with a letter or a digit",
    ),
]
CookieName = Annotated[
    str,  # a token of RFC 9110 §5.6.2, as RFC 6265 §4.1.1 has it
    matching(
        r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}",
        "must have 1 to 64 letters, digits and the characters !#$%&'*+.^_`|~-",
    ),
]
RoutePath = Annotated[
    str, matching(r"/[A-Za-z0-9/_-]*", 'must be a path like "/auth/login", without a query')
]


class Public(Section):
    """How browsers see the relay."""

    url: Origin = Field(
        description="Origin of the application and of the issuer. It is the issuer (`iss`) of tokens."
    )
    stream_url: StreamOrigin = Field(
        description="Origin of the WebSocket listener. The audience (`aud`) of tokens begins with it."
    )
    allowed_origins: tuple[PageOrigin, ...] = Field(
        default=(),
        description="Origins of further pages, applications (capacitor://localhost) and browser extensions that may "
        "log in, ask for tokens and open sockets; public.url always may.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Addresses or networks of proxies whose X-Forwarded-For header is believed."
    )


class Tls(Section):
    """A listener's certificate. The files are read at the start, and again on SIGHUP."""

    cert: Path = Field(description="PEM file with the certificate first, then its chain.")
    key: Path = Field(description="PEM file with the private key, without a password.")


class ListenSection(Section):
    """Where the three listeners are bound. Port 0 takes a free one."""

    http: Listen = Field(
        default="0.0.0.0:8000", description="Public HTTP: issuer, log-in, JWKS, browser client."
    )  # made to be public
    stream: Listen = Field(default="0.0.0.0:8001", description="Public WebSocket.")  # made to be public
    internal: Listen = Field(default="127.0.0.1:8002", description="Internal HTTP: publishing, health.")
    tls: Tls | None = Field(default=None, description="Certificate of both public listeners.")
    internal_tls: Tls | None = Field(default=None, description="Certificate of the internal listener.")
    internal_hosts: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.1", "[::1]"),
        description="Host names of the internal listener. Only these and IP addresses are accepted (DNS rebinding).",
    )
    role: Literal["all", "issuer", "stream", "ingest"] = Field(
        default="all",
        description="The part of the relay that runs here, and so its listeners: issuer has http, stream has stream, "
        "ingest has internal alone, for publishers. All have internal. `relay serve --role` overrides it.",
    )
    keepalive_s: float = Field(
        default=75.0,
        ge=1,
        le=3600,
        description="Seconds that an HTTP connection stays open between two requests: longer than the proxy in front "
        "keeps it.",
    )


class Tokens(Section):
    """Scoped tokens."""

    ttl_s: int = Field(
        default=MAX_LIFETIME_S, ge=1, le=MAX_LIFETIME_S, description="Seconds from issue to expiry."
    )
    keys_dir: Path = Field(
        default=Path("keys"), description="Folder of the signing keys (`relay keys new --dir …`)."
    )
    publish_before_sign_s: int = Field(
        default=PUBLISH_BEFORE_SIGN_S,
        ge=0,
        le=86_400,
        description="Seconds for which `relay keys rotate` publishes a new key before the key signs.",
    )
    jwks_private_http: bool = Field(
        default=False,
        description="Whether jwks_url may be http in a private network. Its machines could then sign any token.",
    )
    jwks_url: str | None = Field(
        default=None,
        description="URL from which `--role stream` fetches the public keys. Default: the keys in tokens.keys_dir.",
    )
    transports: tuple[Literal["subprotocol", "query", "first_message"], ...] = Field(
        default=("subprotocol", "query", "first_message"),
        min_length=1,
        description="Ways in which a client may send its token.",
    )
    default_endpoint: Name = Field(
        default="prices", description="Endpoint of a token request that names none."
    )

    @field_validator("jwks_url")
    @classmethod
    def _check_jwks_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        return checked_jwks_url(value, info)


class Publisher(Section):
    """A backend team that may publish."""

    secret_sha256: tuple[Sha256, ...] = Field(
        min_length=1, max_length=2, description="SHA-256 of the key's secret, in hex; two during a rotation."
    )
    channels: tuple[Pattern, ...] = Field(min_length=1, description="Channels that the key may publish to.")
    exclusive: bool = Field(
        default=False, description="Whether other publishers may not have channels in common with this one."
    )
    rate: Rate | Literal[""] = Field(
        default="", description='Messages that it may publish, like "20000/second". Empty: no limit.'
    )
    byte_rate: Rate | Literal[""] = Field(
        default="",
        description='Bytes of messages that it may publish, like "5000000/second". Empty: no limit.',
    )


class Operator(Section):
    """A person or a tool that may call the internal listener."""

    secret_sha256: tuple[Sha256, ...] = Field(
        min_length=1, max_length=2, description="SHA-256 of the key's secret, in hex; two during a rotation."
    )
    may: tuple[May, ...] = Field(
        min_length=1,
        description="What the key allows: read (numbers, audit log), revoke (sessions, tokens), reset (channels).",
    )


class Csrf(Section):
    """Pages that may send requests with a cookie."""

    trusted_origins: tuple[PageOrigin, ...] = Field(
        default=(),
        description="Origins of further pages, applications and browser extensions that may send requests, but may "
        "open no sockets. Those of public.allowed_origins need not be here.",
    )
    require_header: bool = Field(
        default=False, description="Whether every request needs the header X-Relay-CSRF: 1."
    )


class Engine(Section):
    """State that is kept between connections and over a restart."""

    url: SecretStr = Field(
        default=SecretStr(""),
        description="Redis or Valkey that several nodes share, like `redis://host:6379`; empty for a single relay. "
        "relay/engine/README.md has the other forms. `redis+cluster://` is experimental.",
    )
    prefix: str = Field(
        default="r1",
        pattern="^[A-Za-z0-9_.-]{1,32}$",
        description="Beginning of the engine's keys. Deployments that share a server need different ones.",
    )
    password_file: Path | None = Field(
        default=None, description="File with the engine's password, if it is not in `engine.url`."
    )
    blind_s: float = Field(
        ge=0,
        le=3600,
        default=30.0,
        description="Seconds without an answer of the engine after which a node closes its sockets, because it may not "
        "know of a revocation; 0: never.",
    )
    ready_after_s: float = Field(
        ge=1,
        le=60,
        default=5.0,
        description="Seconds without an answer of the engine after which `/ready` answers 503.",
    )
    log_bytes: int = Field(
        ge=1 << 20,
        le=1 << 32,
        default=64 << 20,
        description="Bytes of publications that the engine keeps for nodes that were away for a moment.",
    )
    state_path: Path = Field(
        default=Path("relay-state.db"), description="SQLite file of used tokens and revocations."
    )


class Limits(Section):
    """Rates, and numbers of connections and channels."""

    tokens_per_session: Rate = Field(default="30/minute", description="Token requests of one session.")
    tokens_per_address: Rate = Field(
        default="600/minute", description="Token requests, log-ins and log-outs of one address, or IPv6 /64."
    )
    logins_per_address: Rate = Field(default="30/minute", description="Log-ins from one address.")
    logins_per_account: Rate = Field(
        default="60/minute", description="Log-ins with one name, right or wrong, from all addresses."
    )
    logins_per_account_and_address: Rate = Field(
        default="10/minute", description="Log-ins with one name from one address, or IPv6 /64."
    )
    proxy_per_session: Rate = Field(
        default="1200/minute", description="Calls of one session through the API proxy, and for the user."
    )
    proxy_per_address: Rate = Field(
        default="6000/minute",
        description="Calls of one address, or IPv6 /64, through the API proxy, and for the user.",
    )
    connections_per_session: int = Field(default=10, ge=1, description="Connections of one session.")
    over: Literal["replace", "refuse"] = Field(
        default="replace",
        description="For one connection more, replace closes the oldest one (4504); refuse refuses it (4503).",
    )
    drain_s: float = Field(
        default=8.0,
        ge=0,
        le=300,
        description="Seconds over which SIGTERM closes the connections, one after the other.",
    )
    handover_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="The same for a worker that SIGUSR2 has replaced: the longer, the less others notice of it.",
    )
    unauthenticated_per_address: int = Field(
        default=100,
        ge=1,
        description="Connections of one address, or IPv6 /64, that have not shown a token yet.",
    )
    connections: int = Field(
        default=20_000, ge=1, description="Open connections in total. Above that number the answer is 503."
    )
    denials_recorded: int = Field(
        default=60,
        ge=1,
        description="Denials of one user or address that are recorded one by one in a minute. Others are only counted.",
    )
    subscriptions_recorded: int = Field(
        default=120,
        ge=1,
        description=(
            "`subscribe` frames of one session that are recorded one by one in a minute. Others are only counted."
        ),
    )
    publications_recorded: int = Field(
        default=1000,
        ge=0,
        description=(
            "Rows of one publisher in the audit log in a minute: one for each channel. Other publications are only "
            "summed up."
        ),
    )
    sent_recorded: int = Field(
        default=256,
        ge=0,
        description=(
            "Channels of one connection in the audit log, with what it was sent: at its end, and every ten minutes. "
            "Other messages are only summed up."
        ),
    )
    channels: int = Field(default=100_000, ge=1, description="Channels that publishers may create.")
    compression_cpu: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description=(
            "Share of a core for compressing what only one connection gets. Beyond it that goes uncompressed. "
            "What several connections get is compressed once for all of them."
        ),
    )


class Channels(Section):
    """The life of channels."""

    idle_s: float = Field(
        default=604_800.0,
        ge=0,
        le=366 * 86_400,
        description="Seconds after which a channel that no publisher touched and no client names is removed; 0: never.",
    )


class Audit(Section):
    """The audit log."""

    path: Path = Field(
        default=Path(audit_log.PATH), description="File of the audit log, one JSON object a line."
    )
    keys_dir: Path = Field(
        default=Path("audit-keys"),
        description="Folder of the key that signs checkpoints; made at the first start. It can't be tokens.keys_dir.",
    )
    rotate_mb: int = Field(
        default=256,
        ge=0,
        le=1 << 20,
        description="Size in MB at which the log continues in a new file; 0: never.",
    )
    rotate_hours: int = Field(
        default=24,
        ge=0,
        le=8784,
        description="Age in hours at which the log continues in a new file; 0: never.",
    )
    keep_days: int = Field(
        default=0, ge=0, le=36600, description="Days after which older files are deleted; 0: never."
    )
    fsync: Literal["never", "checkpoint", "always"] = Field(
        default="checkpoint",
        description="When to wait for the disk, against a power cut: never, at checkpoints, or at every write.",
    )
    index_memory_mb: int = Field(
        default=audit_log.MEMORY_MB,
        ge=audit_log.LEAST_MEMORY_MB,
        le=audit_log.MOST_MEMORY_MB,
        description="Memory in MB of the index that `relay audit` makes of a long log. More of it goes to the disk.",
    )
    stdout: Literal["nothing", "checkpoints", "records"] = Field(
        default="nothing",
        description="What is copied to standard output. All other lines then go to standard error.",
    )


class Log(Section):
    """The process's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level."
    )
    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto: text on a terminal, JSON elsewhere."
    )
