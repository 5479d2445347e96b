"""Sessions that are a JWT signed by the backend, in the session cookie or as a Bearer token.

A text that is not a JWT, and a JWT of another issuer, are left to other verifiers (`NotMine`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from relay.core.errors import ConfigurationError, Reason, Refusal, UnavailableError
from relay.core.jwk_set import MAX_KID_CHARS, NoKey, read_kid
from relay.core.jws import Compact, VerifyKey, check_signature, parse_compact
from relay.core.tokens import TYPE as SCOPED_TYPE
from relay.sessions.base import Ended, NotMine, Session
from relay.sessions.claims import (
    DEFAULT_NAMES,
    LEEWAY_S,
    ClaimNames,
    check_times,
    ended,
    invalid,
    refused,
    to_session,
)
from relay.sessions.cookies import MAX_SESSION_CHARS
from relay.sessions.signed_keys import check_algorithm, load_key, misread_secrets, names_of

MAX_CREDENTIAL_BYTES: Final = MAX_SESSION_CHARS
"""Longest session token, all chunks of its cookie together. Many proxies pass less: see relay/sessions/README.md."""


class PublicKeys(Protocol):
    """The port for the public keys that a backend publishes. `relay.keys.jwks_client` is its adapter."""

    async def key(
        self, kid: str, *, fits: Callable[[VerifyKey], bool], caller: str = ""
    ) -> VerifyKey | NoKey:
        """Return the key for a token with this `kid` ("": none). See `KeySet.find` for `fits`.

        `caller` is the client's address, for a budget: a kid that nobody knows may cost a request.

        Raises:
            UnavailableError: if the keys can't be fetched now, or it is not certain yet that there is no such key.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedOptions:
    """The form of the backend's sessions.

    `key` is the HMAC secret, or a public key as a text (`relay.sessions.key_text`), or a source of public keys.
    `require` has claims and their required values.
    """

    algorithm: str
    key: bytes | PublicKeys = field(repr=False)
    ref_key: bytes = field(repr=False)
    issuer: str | None = None
    audience: str | None = None
    typ: str | None = None
    require: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    claims: ClaimNames = DEFAULT_NAMES
    leeway_s: float = LEEWAY_S


class SignedVerifier:
    """A `SessionVerifier` for JWTs signed with one algorithm. It makes no calls, except to a source of keys."""

    def __init__(self, options: SignedOptions) -> None:
        """Check `options` and load the key.

        Raises:
            ConfigurationError: with one sentence that says what to set.
        """
        check_algorithm(options.algorithm)
        _check_discriminator(options)
        if not options.ref_key:
            raise ConfigurationError("session.ref_key is missing: set it to a long random text.")
        self._options = options
        self._keys: VerifyKey | PublicKeys
        self._misread: tuple[tuple[str, VerifyKey], ...] = ()
        if isinstance(options.key, bytes):
            self._keys = load_key(options.algorithm, options.key)
            self._misread = misread_secrets(self._keys)
        elif options.algorithm.startswith("HS"):
            raise ConfigurationError(
                f"session.signed.jwks_url can't be used with {options.algorithm}: each reader of a published secret "
                "could sign with it. Use an algorithm with public keys, such as RS256."
            )
        else:
            self._keys = options.key

    async def verify(
        self, credential: str, *, now: float, grace_s: float = 0, caller: str = ""
    ) -> Session | Refusal:
        """See `SessionVerifier.verify`. Refuses with `session_expired` or `session_invalid`."""
        if credential.count(".") != 2:
            return NotMine(detail="It is not a JWT.")
        token = parse_compact(credential, max_bytes=MAX_CREDENTIAL_BYTES)
        if isinstance(token, Refusal):
            return invalid(token.detail)
        if refusal := _wrong_header(token.header, self._options):
            return refusal
        issuer = self._options.issuer
        if issuer is not None and token.payload.get("iss") != issuer:
            return NotMine(detail=f"iss is not {issuer}.", setting="session.signed.issuer")
        names = self._options.claims
        signature = _Signature(token)
        key = await self._key(token, signature, caller)
        if isinstance(key, Refusal):
            return refused(key, token.payload, names)
        if refusal := _wrong_signature(signature, key, self._misread) or _wrong_purpose(
            token.payload, self._options
        ):
            return refused(refusal, token.payload, names)
        leeway_s = self._options.leeway_s
        session = to_session(
            token.payload,
            names,
            ref_key=self._options.ref_key,
            now=now,
            leeway_s=leeway_s,
            grace_s=grace_s,
        )
        if refusal := check_times(token.payload, now=now, leeway_s=leeway_s, grace_s=grace_s):
            return refused(refusal, token.payload, names, session=session)
        return session

    def forget(self, ref: str) -> None:
        """See `SessionVerifier.forget`. This verifier keeps nothing about sessions."""

    async def aclose(self) -> None:
        """See `SessionVerifier.aclose`."""
        if not isinstance(self._keys, VerifyKey):
            await self._keys.aclose()

    async def _key(self, token: Compact, signature: "_Signature", caller: str) -> VerifyKey | Refusal:
        kid = read_kid(token.header.get("kid"))
        if kid is None:
            return invalid(f"The header's kid is not a text of at most {MAX_KID_CHARS} characters.")
        if isinstance(self._keys, VerifyKey):
            return self._keys  # there is one key, so the header's kid does not matter
        setting = "session.signed.jwks_url"
        if token.header.get("alg") not in names_of(self._options.algorithm):  # before a call for the key
            detail = f"The header's alg is not {self._options.algorithm}."
            return invalid(detail, setting="session.signed.algorithm")
        try:
            key = await self._keys.key(kid, fits=lambda key: signature.check(key) is None, caller=caller)
        except UnavailableError as error:
            raise UnavailableError(error.reason, str(error), setting=setting) from None
        # not `ended`: it may be a key that the backend does not publish yet
        return invalid(key.detail, setting=setting) if isinstance(key, NoKey) else key


def media_type(typ: object) -> str:
    """Return a `typ` in the form for comparison (RFC 7515 §4.1.9): lower case, without "application/"."""
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else ""


def is_scoped(header: Mapping[str, Any]) -> bool:
    """Tell whether a token's header is one of our own scoped tokens'."""
    return media_type(header.get("typ")) == SCOPED_TYPE


def scoped_refusal() -> Refusal:
    """Return the refusal of one of our own scoped tokens. A leaked one must not buy more of them."""
    return ended(Ended.OTHER_KIND, "It is a scoped token, and a scoped token is never a session.")


def _wrong_header(header: Mapping[str, Any], options: SignedOptions) -> Refusal | None:
    if is_scoped(header):  # with any signature
        return scoped_refusal()
    if options.typ is not None and media_type(header.get("typ")) != media_type(options.typ):
        kind = header["typ"] if media_type(header.get("typ")) not in ("", "jwt") else None
        return _of_other_kind(kind, f"The header's typ is not {options.typ}.", "session.signed.typ")
    if "crit" in header:  # RFC 7515 §4.1.11
        return invalid("The header has crit, and the relay knows no extension.")
    return None


class _Signature:
    """The signature of one token. A good one is checked once, although two places ask."""

    def __init__(self, token: Compact) -> None:
        self._token = token
        self._good: VerifyKey | None = None

    def check(self, key: VerifyKey) -> Refusal | None:
        """See `check_signature`."""
        if key is self._good:
            return None
        wrong = check_signature(self._token, key)
        self._good = key if wrong is None else self._good
        return wrong


def _wrong_signature(
    signature: _Signature, key: VerifyKey, misread: tuple[tuple[str, VerifyKey], ...]
) -> Refusal | None:
    wrong = signature.check(key)
    for name, other in misread if wrong is not None else ():
        if signature.check(other) is None:  # the setting is wrong, and not the session
            setting = f"session.signed.{name}"
            return invalid(f"The signature is right if the secret is set as {setting}.", setting=setting)
    if wrong is None or wrong.reason is Reason.TOKEN_SIGNATURE:
        return wrong and ended(Ended.WRONG_SIGNATURE, str(wrong), setting="session.signed")
    return invalid(f"The header's alg is not {key.algorithm}.", setting="session.signed.algorithm")


def _wrong_purpose(payload: Mapping[str, Any], options: SignedOptions) -> Refusal | None:
    """Check that a token with a right signature is a session.

    A claim with another value says that the token is of another kind. Without the claim that is not known: the setting
    may name a claim that the backend does not make.
    """
    if options.audience is not None:
        audience = payload.get("aud")  # RFC 7519 §4.1.3: one text, or a list of texts
        if options.audience not in (audience if isinstance(audience, list) else [audience]):
            return _of_other_kind(
                audience, f"aud does not name {options.audience}.", "session.signed.audience"
            )
    for name, value in options.require.items():
        claim = payload.get(name)
        if isinstance(claim, bool) is not isinstance(value, bool) or claim != value:
            # True == 1 in Python, but not in JSON
            return _of_other_kind(claim, f"{name} is not {value!r}.", "session.signed.require")
    return None


def _of_other_kind(claim: object, detail: str, setting: str) -> Refusal:
    if claim is None:
        return invalid(detail, setting=setting)
    return ended(Ended.OTHER_KIND, detail, setting=setting)


def _check_discriminator(options: SignedOptions) -> None:
    """Check that something tells a session from the other tokens of the same key (RFC 8725 §3.12).

    The backend may sign a 7-day refresh token or a link in a mail with this key. Its signature alone proves only that
    the backend made the token.
    """
    typ = media_type(options.typ)
    if typ == SCOPED_TYPE:
        raise ConfigurationError(
            f"session.signed.typ can't be {SCOPED_TYPE}: such a token is never a session."
        )
    if typ == "" and options.typ is not None:
        raise ConfigurationError("session.signed.typ is empty: leave it out, or name the header's typ.")
    # any JWT may have typ JWT, so that value tells nothing
    if not options.audience and not options.require and typ in ("", "jwt"):
        raise ConfigurationError(
            "session.signed must tell a session from other tokens of the same key, or a 7-day refresh token "
            'would pass as a session: set require = { token_use = "access" } with a claim that only '
            "sessions have, or audience, or a typ other than JWT."
        )
