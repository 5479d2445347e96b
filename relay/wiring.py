"""Settings into options: what each shell gets to know of them, and in its own words.

The shells can't import the settings, so that none of them can grow a dependence on a key that is not its own.
"""

from collections.abc import Callable

from relay.config import Settings
from relay.core.channels import covers
from relay.core.errors import ConfigurationError
from relay.core.feeds import FeedOptions
from relay.core.messages import Mode
from relay.ingest.service import PublisherTerms
from relay.issuer.policy import EndpointTerms, Grant, Policy
from relay.issuer.service import IssuerOptions
from relay.sessions.signed import SignedOptions
from relay.stream.gate import EndpointOptions, GateOptions
from relay.stream.service import StreamOptions
from relay.web.addresses import parse_networks
from relay.web.cookies import CookieOptions
from relay.web.csrf import CsrfOptions


def signed_options(settings: Settings) -> SignedOptions:
    """Return the options of the verifier `signed`.

    Raises:
        ConfigurationError: if the public key's file can't be read.
    """
    signed, claims = settings.session.signed, settings.session.claims
    assert signed is not None  # the settings' own check
    if signed.secret is not None:
        key = signed.secret.get_secret_value().encode()
    else:
        assert signed.public_key is not None  # the settings' own check
        try:
            key = signed.public_key.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"session.signed.public_key: {signed.public_key} can't be read: {error.strerror}."
            ) from None
    return SignedOptions(
        algorithm=signed.algorithm,
        key=key,
        ref_key=settings.session.ref_key.get_secret_value().encode(),
        issuer=signed.issuer,
        audience=signed.audience,
        typ=signed.typ,
        require=signed.require,
        subject_claim=claims.subject,
        roles_claim=claims.roles,
        session_claim=claims.session,
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
            for name, endpoint in settings.endpoints.items()
        },
        default_endpoint=settings.tokens.default_endpoint,
        allowed_origins=settings.allowed_origins,
        tokens_per_session=settings.limits.tokens_per_session,
        tokens_per_address=settings.limits.tokens_per_address,
    )


def stream_options(settings: Settings) -> StreamOptions:
    """Return the WebSocket listener's options."""
    return StreamOptions(
        trusted_proxies=parse_networks(settings.public.trusted_proxies),
        connections_per_session=settings.limits.connections_per_session,
        replace_oldest=settings.limits.over == "replace",
        drain_s=settings.limits.drain_s,
        revocation_s=settings.session.max_s,
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
                min_interval_ms=endpoint.min_interval_ms,
            )
            for name, endpoint in settings.endpoints.items()
        },
        allowed_origins=settings.allowed_origins,
        transports=settings.tokens.transports,
    )


def feed_options(settings: Settings) -> Callable[[str], FeedOptions]:
    """Return how a channel, or the channels of a pattern, behave: as the first endpoint says that has them."""
    known = [
        (
            pattern,
            FeedOptions(
                mode=endpoint.mode,
                silence_ms=endpoint.silence_ms,
                history_messages=endpoint.history.messages if endpoint.mode is Mode.STREAM else 0,
                history_ms=endpoint.history.seconds * 1000,
            ),
        )
        for endpoint in settings.endpoints.values()
        for pattern in endpoint.channels
    ]

    def options(name: str) -> FeedOptions:
        return next((found for pattern, found in known if covers(pattern, name)), FeedOptions())

    return options


def policy(settings: Settings) -> Policy:
    """Return what each role may ask for."""
    return Policy(
        {
            role: {
                name: Grant(channels=grant)
                if isinstance(grant, tuple)
                else Grant(channels=grant.channels, min_interval_ms=grant.min_interval_ms)
                for name, grant in by_endpoint.items()
            }
            for role, by_endpoint in settings.grants.items()
        }
    )


def publisher_terms(settings: Settings) -> dict[str, PublisherTerms]:
    """Return who may publish what."""
    return {
        name: PublisherTerms(secret_sha256=publisher.secret_sha256, channels=publisher.channels)
        for name, publisher in settings.publishers.items()
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
