"""Settings into options: what each shell gets to know of them, and in its own words.

The shells can't import the settings, so that none of them can grow a dependence on a key that is not its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from relay.core.channels import ChannelOptions
from relay.core.grants import GrantOptions
from relay.core.messages import Mode
from relay.core.patterns import covers
from relay.core.tokens import SERVICE_SCOPE
from relay.ingest.service import PublisherTerms
from relay.issuer.policy import EndpointTerms, Grant, Policy
from relay.issuer.service import IssuerOptions
from relay.limits.quotas import QuotaTerms
from relay.limits.requests import Rates
from relay.net.addresses import parse_networks
from relay.net.sockets import open_files
from relay.net.tls import ServerTls, TlsFiles
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.ops.operators import OperatorTerms
from relay.settings.endpoints import channels_of, options_of
from relay.settings.load import Settings
from relay.stream.gate import EndpointOptions, GateOptions
from relay.stream.service import StreamOptions
from relay.web.cookies import CookieOptions
from relay.web.csrf import CsrfOptions


def stream_unauthenticated(settings: Settings) -> UnauthenticatedConnections:
    """Return the counts of the stream's connections that have shown no token yet."""
    return _unauthenticated(settings, crowd=settings.limits.connections // 2)


def http_unauthenticated(settings: Settings) -> UnauthenticatedConnections:
    """Return the counts of the public HTTP listener's connections that have sent nothing yet: each has an open file."""
    return _unauthenticated(settings, crowd=open_files() * 3 // 4)


def _unauthenticated(settings: Settings, *, crowd: int) -> UnauthenticatedConnections:
    proxies = parse_networks(settings.public.trusted_proxies)
    return UnauthenticatedConnections(
        limit=settings.limits.unauthenticated_per_address, crowd=crowd, proxies=proxies
    )


def issuer_options(settings: Settings) -> IssuerOptions:
    """Return the issuer's options."""
    return IssuerOptions(
        issuer=settings.public.url,
        ttl_s=settings.tokens.ttl_s,
        endpoints={
            name: EndpointTerms(
                audience=settings.public.stream_url + endpoint.path, channels=endpoint.channels
            )
            for name, endpoint in settings.sockets.items()
        }
        | {
            name: EndpointTerms(audience=endpoint.url, channels=(), scope=SERVICE_SCOPE)
            for name, endpoint in settings.services.items()
        },
        default_endpoint=settings.tokens.default_endpoint,
        allowed_origins=settings.allowed_origins,
    )


def rates(settings: Settings) -> Rates:
    """Return how often tokens and log-ins may be asked for."""
    return Rates(
        tokens_per_address=settings.limits.tokens_per_address,
        tokens_per_session=settings.limits.tokens_per_session,
        logins_per_address=settings.limits.logins_per_address,
        logins_per_account=settings.limits.logins_per_account,
        logins_per_account_and_address=settings.limits.logins_per_account_and_address,
    )


def stream_patterns(settings: Settings) -> tuple[str, ...]:
    """Return the patterns of the channels of mode `stream`."""
    return tuple(
        pattern
        for endpoint in settings.sockets.values()
        if endpoint.mode is Mode.STREAM
        for pattern in endpoint.channels
    )


def stream_options(settings: Settings) -> StreamOptions:
    """Return the WebSocket listener's options."""
    return StreamOptions(
        trusted_proxies=parse_networks(settings.public.trusted_proxies),
        connections=settings.limits.connections,
        connections_per_session=settings.limits.connections_per_session,
        replace_oldest=settings.limits.over == "replace",
        drain_s=settings.limits.drain_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """TLS of the listeners, None where a listener speaks plain HTTP. `strict` says that browsers get HSTS."""

    public: ServerTls | None
    internal: ServerTls | None
    strict: bool

    @property
    def sides(self) -> tuple[ServerTls, ...]:
        """Those that there are."""
        return tuple(side for side in (self.public, self.internal) if side is not None)

    def check(self) -> None:
        """Read renewed certificates. See `ServerTls.check`."""
        for side in self.sides:
            side.check()


def tls_files(settings: Settings) -> tuple[TlsFiles | None, TlsFiles | None]:
    """Return where the certificates of the public listeners and of the internal one are."""
    listen = settings.listen
    return tuple(  # type: ignore[return-value]  # one for each of two names
        None if files is None else TlsFiles(setting=f"listen.{name}", cert=files.cert, key=files.key)
        for name, files in (("tls", listen.tls), ("internal_tls", listen.internal_tls))
    )


def listener_tls(settings: Settings) -> ListenerTls:
    """Read the listeners' certificates.

    Raises:
        ConfigurationError: with one sentence about the first file that can't be used.
    """
    public, internal = (None if files is None else ServerTls(files) for files in tls_files(settings))
    return ListenerTls(
        public=public,
        internal=internal,
        # browsers keep HSTS for the name on all ports: on `localhost` it would break whatever else runs there
        strict=public is not None and urlsplit(settings.public.url).hostname != "localhost",
    )


def gate_options(settings: Settings) -> GateOptions:
    """Return the gate's options."""
    return GateOptions(
        issuer=settings.public.url,
        endpoints={
            endpoint.path: EndpointOptions(
                name=name,
                path=endpoint.path,
                audience=settings.public.stream_url + endpoint.path,
                max_age_s=endpoint.max_age_s,
                options=GrantOptions.of(endpoint),
            )
            for name, endpoint in settings.sockets.items()
        },
        allowed_origins=settings.allowed_origins,
        transports=settings.tokens.transports,
    )


def endpoint_of(settings: Settings) -> Callable[[str], str | None]:
    """Return which endpoint a channel, or the channels of a pattern, belong to: the first that has them."""
    known = [(pattern, name) for name, endpoint in settings.sockets.items() for pattern in endpoint.channels]

    @lru_cache(maxsize=10_000)  # asked for each subscription, and for each channel that is shown
    def endpoint(channel: str) -> str | None:
        return next((name for pattern, name in known if covers(pattern, channel)), None)

    return endpoint


def channel_options(settings: Settings) -> Callable[[str], ChannelOptions]:
    """Return how a channel, or the channels of a pattern, behave: as the endpoint says that has them."""
    named = endpoint_of(settings)
    options = {
        name: ChannelOptions(
            mode=endpoint.mode,
            silence_ms=endpoint.silence_ms,
            history_messages=endpoint.history.messages if endpoint.mode is Mode.STREAM else 0,
            history_ms=endpoint.history.seconds * 1000,
        )
        for name, endpoint in settings.sockets.items()
    }
    default = ChannelOptions()
    return lambda channel: options.get(named(channel) or "", default)


def policy(settings: Settings) -> Policy:
    """Return what each role may ask for."""
    return Policy(
        {
            role: {
                name: Grant(channels=channels_of(grant), options=options_of(grant))
                for name, grant in by_endpoint.items()
            }
            for role, by_endpoint in settings.grants.items()
        }
    )


def publisher_terms(settings: Settings) -> dict[str, PublisherTerms]:
    """Return who may publish what."""
    return {
        name: PublisherTerms(
            secret_sha256=publisher.secret_sha256,
            channels=publisher.channels,
            exclusive=publisher.exclusive,
            quota=QuotaTerms(rate=publisher.rate, byte_rate=publisher.byte_rate),
        )
        for name, publisher in settings.publishers.items()
    }


def operator_terms(settings: Settings) -> dict[str, OperatorTerms]:
    """Return who may call the internal listener, and for what."""
    return {
        name: OperatorTerms(secret_sha256=operator.secret_sha256, may=frozenset(operator.may))
        for name, operator in settings.operators.items()
    }


def csrf_options(settings: Settings) -> CsrfOptions:
    """Return where requests with a cookie may come from."""
    return CsrfOptions(
        origins=frozenset({settings.public.url, *settings.csrf.trusted_origins}),
        require_header=settings.csrf.require_header,
    )


def cookie_options(settings: Settings) -> tuple[CookieOptions, CookieOptions]:
    """Return how the session's and the refresh cookie are set."""
    secure = settings.public.url.startswith("https://")
    bff = settings.bff
    return (
        CookieOptions(name=settings.session.cookie, max_age_s=bff.access_max_age_s, secure=secure),
        CookieOptions(name=bff.refresh_cookie, max_age_s=bff.refresh_max_age_s, secure=secure),
    )
