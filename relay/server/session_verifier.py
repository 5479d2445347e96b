"""The session verifiers that the settings name, and the cookies that they read."""

from functools import partial
from urllib.parse import urlsplit

from relay.core.errors import ConfigurationError
from relay.keys.jwks_client import SETTLE_S, JwksClient
from relay.server.options import ref_key
from relay.sessions.authjs import AuthjsOptions, AuthjsVerifier
from relay.sessions.base import SessionVerifier
from relay.sessions.chain import VerifierChain
from relay.sessions.claims import ClaimNames
from relay.sessions.cookies import SessionCookies
from relay.sessions.signed import PublicKeys, SignedOptions, SignedVerifier
from relay.sessions.signed_keys import decode_secret, read_keys
from relay.sessions.upstream import UpstreamOptions, UpstreamVerifier
from relay.settings.load import Settings
from relay.settings.sessions import Signed
from relay.web.cookies import CookieOptions, OwnCookies


def session_verifier(settings: Settings) -> SessionVerifier:
    """Return the verifiers that `session.verifier` names, in their order.

    Raises:
        ConfigurationError: if a key can't be read or does not fit its algorithm.
    """
    makers = {"signed": _signed, "upstream": _upstream, "authjs": _authjs}
    return VerifierChain([makers[name](settings) for name in settings.session.verifier])


def _claim_names(settings: Settings) -> ClaimNames:
    claims = settings.session.claims
    return ClaimNames(
        subject=claims.subject, roles=claims.roles, session=claims.session, issued_at=claims.issued_at
    )


def _signed(settings: Settings) -> SessionVerifier:
    signed = settings.session.signed
    assert signed is not None  # the settings check that
    return SignedVerifier(
        SignedOptions(
            algorithm=signed.algorithm,
            key=_signed_key(signed),
            ref_key=ref_key(settings),
            issuer=signed.issuer,
            audience=signed.audience,
            typ=signed.typ,
            require=signed.require,
            claims=_claim_names(settings),
            leeway_s=settings.session.leeway_s,
        )
    )


def _signed_key(signed: Signed) -> bytes | PublicKeys:
    if signed.jwks_url is not None:
        return JwksClient(
            signed.jwks_url,
            read=partial(read_keys, algorithm=signed.algorithm),
            settle_s=SETTLE_S,
            private_http=signed.jwks_private_http,
        )
    if signed.public_key_file is not None:
        try:
            return signed.public_key_file.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"session.signed.public_key_file: {signed.public_key_file} can't be read: {error.strerror}."
            ) from None
    if signed.secret_base64 is not None:
        return decode_secret(signed.secret_base64.get_secret_value())
    text = signed.public_key if signed.secret is None else signed.secret.get_secret_value()
    assert text is not None  # the settings check that
    return text.encode()


def _upstream(settings: Settings) -> SessionVerifier:
    upstream = settings.session.upstream
    assert upstream is not None  # the settings check that
    return UpstreamVerifier(
        UpstreamOptions(
            me=upstream.me,
            ref_key=ref_key(settings),
            timeout_s=upstream.timeout_s,
            cache_s=upstream.cache_s,
            claims=_claim_names(settings),
            leeway_s=settings.session.leeway_s,
        )
    )


def _authjs(settings: Settings) -> SessionVerifier:
    authjs = settings.session.authjs
    assert authjs is not None  # the settings check that
    return AuthjsVerifier(
        AuthjsOptions(
            secrets=tuple(secret.get_secret_value() for secret in authjs.secrets),
            cookies=_authjs_cookies(settings),
            ref_key=ref_key(settings),
            claims=_claim_names(settings),
            leeway_s=settings.session.leeway_s,
        )
    )


def _authjs_cookies(settings: Settings) -> tuple[str, ...]:
    if settings.session.authjs is None:
        return ()
    prefix = "__Secure-" if settings.public.url.startswith("https://") else ""
    default = (f"{prefix}authjs.session-token", f"{prefix}next-auth.session-token")
    return settings.session.authjs.cookies or default


def session_cookies(settings: Settings) -> SessionCookies:
    """Return the cookies in which a session may be: the session cookie, and those of Auth.js.

    If public.url is https, cookies of Auth.js without the prefix __Secure- don't count: any page of a sibling domain
    can set them, even over http.
    """
    own = () if settings.session.verifier == ("authjs",) else (settings.session.cookie,)
    authjs = _authjs_cookies(settings)
    return SessionCookies(names=(*own, *authjs))


def own_cookies(settings: Settings) -> OwnCookies:
    """Return the cookies that are read, set and cleared."""
    bff = settings.bff

    def options(name: str, max_age_s: int) -> CookieOptions:
        return CookieOptions(
            name=name,
            max_age_s=max_age_s,
            secure=settings.public.url.startswith("https://"),
            embedded=bff.same_site == "none",
        )

    return OwnCookies(
        session=session_cookies(settings),
        access=options(settings.session.cookie, bff.access_max_age_s),
        refresh=options(bff.refresh_cookie, bff.refresh_max_age_s) if bff.backend is not None else None,
        domains=_domains(urlsplit(settings.public.url).hostname or ""),
    )


def _domains(host: str) -> tuple[str, ...]:
    """Return `host` and its parents of two labels and more, for which browsers keep cookies; nothing for an address."""
    labels = host.split(".")
    if ":" in host or labels[-1].isdigit():
        return ()
    return tuple(".".join(labels[start:]) for start in range(len(labels) - 1))
