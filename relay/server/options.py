"""The options of each room, made of the settings.

The other rooms can't import the settings. So each of them depends on its own options only.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.audit.writer import LogOptions, StdoutCopy, Sync
from relay.bff.backend import AnswerFields, BackendOptions
from relay.bff.refresh import RefreshOptions
from relay.core.channels import ChannelOptions
from relay.core.errors import ConfigurationError
from relay.core.grants import GrantOptions
from relay.core.messages import Mode
from relay.core.patterns import covers
from relay.core.tokens import SERVICE_SCOPE
from relay.ingest.service import PublisherTerms
from relay.issuer.policy import EndpointTerms, Grant, Policy
from relay.issuer.service import IssuerOptions
from relay.keys.files import create_signing_key, load_keys
from relay.limits.quotas import QuotaTerms
from relay.limits.requests import Rates
from relay.net.addresses import parse_networks
from relay.net.sockets import open_files
from relay.net.unauthenticated import Bounds, UnauthenticatedConnections
from relay.ops.operators import OperatorTerms
from relay.sessions.life import keep_s
from relay.settings.endpoints import channels_of, options_of
from relay.settings.load import Settings
from relay.stream.gate import EndpointOptions, GateOptions
from relay.stream.service import StreamOptions
from relay.web.csrf import CsrfOptions

MIN_IDLE = 100
"""HTTP connections, at least, that are kept between two requests."""
MIN_ANSWERED = 100
"""Connections above limits.connections, at least, that are told so. Further ones are cut off before TLS."""


def ref_key(settings: Settings) -> bytes:
    """Return the key of the session references, which no log shows."""
    return settings.session.ref_key.get_secret_value().encode()


def digest_of_ref_key(settings: Settings) -> str:
    """Return what is the same for two relays only if `ref_key` is. It does not tell the key."""
    return hmac.new(ref_key(settings), b"nodes of an engine", hashlib.sha256).hexdigest()[:16]


def unauthenticated(settings: Settings, bounds: Bounds) -> UnauthenticatedConnections:
    """Return the counts of a listener's connections that have shown no token yet."""
    return UnauthenticatedConnections(bounds, proxies=parse_networks(settings.public.trusted_proxies))


def stream_bounds(settings: Settings) -> Bounds:
    """Return the bounds of the stream's connections without a token."""
    limits = settings.limits
    return Bounds(
        limit=limits.unauthenticated_per_address,
        crowd=limits.connections // 2,
        most=limits.connections + max(MIN_ANSWERED, limits.connections // 10),
    )


def http_bounds(settings: Settings, *, tls: bool) -> Bounds:
    """Return the bounds of an HTTP listener's connections that wait for their clients.

    Over plain TCP each has an open file only. Over TLS it takes as much memory as a WebSocket, and has the same bounds.
    Between two requests they may use a quarter of the files that the stream's connections leave.
    """
    files, limits = open_files(), settings.limits
    idle = max(MIN_IDLE, (files - limits.connections) // 4)
    if tls:
        return replace(stream_bounds(settings), idle=idle)
    return Bounds(
        limit=limits.unauthenticated_per_address, crowd=files * 3 // 4, most=files * 7 // 8, idle=idle
    )


def issuer_options(settings: Settings) -> IssuerOptions:
    """Return the issuer's options."""
    return IssuerOptions(
        issuer=settings.public.url,
        ttl_s=settings.tokens.ttl_s,
        max_s=settings.session.max_s,
        leeway_s=settings.session.leeway_s,
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


def revocations_kept_s(settings: Settings) -> int:
    """Return for how many seconds a revocation is kept."""
    session = settings.session
    return int(keep_s(max_s=session.max_s, leeway_s=session.leeway_s))


def rates(settings: Settings) -> Rates:
    """Return the rates of token requests and log-ins."""
    return Rates(
        tokens_per_address=settings.limits.tokens_per_address,
        tokens_per_session=settings.limits.tokens_per_session,
        logins_per_address=settings.limits.logins_per_address,
        logins_per_account=settings.limits.logins_per_account,
        logins_per_account_and_address=settings.limits.logins_per_account_and_address,
        proxy_per_session=settings.limits.proxy_per_session,
        proxy_per_address=settings.limits.proxy_per_address,
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
        handover_s=settings.limits.handover_s,
        sent_recorded=settings.limits.sent_recorded,
        compression_cpu=settings.limits.compression_cpu,
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
    """Return a function that names the endpoint of a channel or a pattern: the first endpoint that has all of it."""
    known = [(pattern, name) for name, endpoint in settings.sockets.items() for pattern in endpoint.channels]

    @lru_cache(maxsize=10_000)  # called for each subscription, and for each channel that is shown
    def endpoint(channel: str) -> str | None:
        return next((name for pattern, name in known if covers(pattern, channel)), None)

    return endpoint


def channel_options(settings: Settings) -> Callable[[str], ChannelOptions]:
    """Return a function that gives the options of a channel or a pattern: those of its endpoint."""
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
    """Return the grants of each role."""
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
    """Return the publishers by name: their keys, channels and quotas."""
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
    """Return the operators by name: their keys, and what the keys allow."""
    return {
        name: OperatorTerms(secret_sha256=operator.secret_sha256, may=frozenset(operator.may))
        for name, operator in settings.operators.items()
    }


def csrf_options(settings: Settings) -> CsrfOptions:
    """Return the origins whose pages may send requests with a cookie, and those that may read the answers."""
    return CsrfOptions(
        origins=settings.allowed_origins | set(settings.csrf.trusted_origins),
        readers=frozenset(settings.public.allowed_origins),
        require_header=settings.csrf.require_header,
    )


def backend_options(settings: Settings) -> BackendOptions | None:
    """Return the options of the log-in's backend; None without one."""
    bff = settings.bff
    if bff.backend is None:
        return None
    return BackendOptions(
        origin=bff.backend,
        login_path=bff.login_path,
        timeout_s=bff.timeout_s,
        me_path=bff.me_path,
        fields=AnswerFields(**bff.fields.model_dump()),
        login_codes=frozenset(bff.login_codes),
        login_messages=frozenset(bff.login_messages),
        refresh_path=bff.refresh.path,
        refresh_dead=frozenset(bff.refresh.dead),
        logout_path=bff.logout_path,
    )


def refresh_options(settings: Settings) -> RefreshOptions:
    """Return the options of the server-side refresh."""
    bff = settings.bff
    return RefreshOptions(
        timeout_s=bff.timeout_s,
        keep_s=bff.refresh_max_age_s,
        unconfirmed_s=bff.refresh.unconfirmed_s,
        reuse_ends_session=bff.refresh.reuse_ends_session,
        ref_key=ref_key(settings),
    )


@dataclass(frozen=True, slots=True)
class AuditKey:
    """The key that signs checkpoints, a `relay.audit.checkpoints.Signer`."""

    kid: str
    key: Ed25519PrivateKey

    def sign(self, data: bytes, /) -> bytes:
        """See `Signer.sign`."""
        return self.key.sign(data)


def audit_log_options(settings: Settings) -> LogOptions:
    """Return how the log is kept. The key is made if its folder is missing.

    Raises:
        ConfigurationError: if the folder has no key to sign with, can't be written, or is the tokens' own.
    """
    audit = settings.audit
    return LogOptions(
        signer=_signer(settings),
        sync=Sync(audit.fsync),
        rotate_bytes=audit.rotate_mb << 20,
        rotate_s=audit.rotate_hours * 3600,
        keep_s=audit.keep_days * 86_400,
    )


def audit_copy(settings: Settings) -> StdoutCopy | None:
    """Return what copies the log to standard output, if the settings want it."""
    what = settings.audit.stdout
    return None if what == "nothing" else StdoutCopy(checkpoints_only=what == "checkpoints")


def _signer(settings: Settings) -> AuditKey:
    folder = settings.audit.keys_dir
    if folder.resolve() == settings.tokens.keys_dir.resolve():
        raise ConfigurationError(
            f"audit.keys_dir: {folder} is tokens.keys_dir too, whose keys are published and sign tokens; name another."
        )
    signing = load_keys(folder).signing if folder.exists() else create_signing_key(folder)
    if signing is None:
        raise ConfigurationError(
            f"audit.keys_dir: {folder} has no private key; make one with `relay keys new --dir {folder}`."
        )
    return AuditKey(signing.kid, signing.key)
