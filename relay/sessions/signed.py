"""Sessions that are a JWT signed by the backend: in the session cookie, or the same one as a Bearer token.

The backend signs more than sessions with the same key: a refresh token that lives for 7 days, a link in a
mail, perhaps. A signature alone proves only that the backend made it, so the verifier won't start without
something that tells a session from the rest (RFC 8725 §3.12): `typ`, `audience`, or a claim in `require`. Our
own scoped tokens are never a session, whoever signed them: one that leaked must not be changed into fresh
ones for ever.

The algorithm is fixed with the key. An HMAC secret that looks like a public key is refused at start: with it,
whoever knows the public key could sign.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError

from relay.core.errors import ConfigurationError, Reason, Refusal
from relay.core.jws import VerifyKey, check_signature, parse_compact
from relay.core.tokens import LEEWAY_S
from relay.core.tokens import TYPE as SCOPED_TYPE
from relay.sessions.base import Session
from relay.sessions.refs import session_ref

MAX_CREDENTIAL_BYTES: Final = 8192
"""Longest session token: browsers keep 4096 bytes a cookie, proxies pass 8 KB of headers."""

MAX_SUBJECT_CHARS: Final = 256
"""Longest user id: it has to fit into a scoped token of 4096 bytes beside 32 channels."""

_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2: no shorter than the hash
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_RSA_BITS = 2048  # RFC 7518 §3.3
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}

ALGORITHMS: Final = (*_SECRET_BYTES, *sorted(_RSA), *_CURVES, "EdDSA")
"""What a backend may sign its sessions with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedOptions:
    """How the backend's sessions look.

    `key` is the HMAC secret, or a public key in PEM form. `require` names claims and the values they must
    have. `session_claim` is where a session's own id stands; a token without it stands for all sessions of
    its user.
    """

    algorithm: str
    key: bytes = field(repr=False)
    ref_key: bytes = field(repr=False)
    issuer: str | None = None
    audience: str | None = None
    typ: str | None = None
    require: Mapping[str, str | int | bool] = field(default_factory=dict)
    subject_claim: str = "sub"
    roles_claim: str = "roles"
    session_claim: str | None = "sid"
    leeway_s: float = LEEWAY_S


class SignedVerifier:
    """A `SessionVerifier` for JWTs signed with one key and one algorithm. It asks nobody."""

    def __init__(self, options: SignedOptions) -> None:
        """Check `options` and load the key.

        Raises:
            ConfigurationError: with one sentence that says what to set.
        """
        _check_discriminator(options)
        if not options.ref_key:
            raise ConfigurationError("session.ref_key is missing: set it to a long random text.")
        self._options = options
        self._key = _load_key(options)

    async def verify(self, credential: str, *, now: float) -> Session | Refusal:
        """See `SessionVerifier.verify`. Refuses with `session_expired` or `session_invalid`."""
        token = parse_compact(credential, max_bytes=MAX_CREDENTIAL_BYTES)
        if isinstance(token, Refusal):
            return _invalid(token.detail)
        if detail := _wrong_header(token.header, self._options):
            return _invalid(detail)
        if refusal := check_signature(token, self._key):
            return _invalid(str(refusal))
        if detail := _wrong_purpose(token.payload, self._options) or _wrong_times(token.payload):
            return _invalid(detail)
        if refusal := _check_times(token.payload, now=now, leeway_s=self._options.leeway_s):
            return refusal
        return _to_session(token.payload, self._options)


def _invalid(detail: str) -> Refusal:
    return Refusal(reason=Reason.SESSION_INVALID, detail=detail)


def _media_type(typ: object) -> str:
    """Return a `typ` as RFC 7515 §4.1.9 compares it: in lower case, "application/" left out."""
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else ""


def _wrong_header(header: Mapping[str, Any], options: SignedOptions) -> str:
    typ = _media_type(header.get("typ"))
    if typ == SCOPED_TYPE:
        return "It is a scoped token, and those are never a session."
    if options.typ is not None and typ != _media_type(options.typ):
        return f"The header's typ is not {options.typ}."
    if "crit" in header:
        return "The header has crit, and no extension is known here."  # RFC 7515 §4.1.11: then refuse
    return ""


def _wrong_purpose(payload: Mapping[str, Any], options: SignedOptions) -> str:
    if options.issuer is not None and payload.get("iss") != options.issuer:
        return f"iss is not {options.issuer}."
    if options.audience is not None:
        audience = payload.get("aud")  # RFC 7519 §4.1.3: one, or a list of them
        if options.audience not in (audience if isinstance(audience, list) else [audience]):
            return f"aud does not name {options.audience}."
    for name, value in options.require.items():
        claim = payload.get(name)
        if type(claim) is not type(value) or claim != value:  # True == 1 in Python, and not in JSON
            return f"{name} is not {value!r}."
    return ""


def _wrong_times(payload: Mapping[str, Any]) -> str:
    if "exp" not in payload:
        return "It has no exp, and would never end."
    for name in ("exp", "nbf", "iat"):
        value = payload.get(name, 1)
        # RFC 7519 §2: a NumericDate may have a fraction
        if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value < 1 << 53:
            return f"{name} must be Unix seconds."
    return ""


def _check_times(payload: Mapping[str, Any], *, now: float, leeway_s: float) -> Refusal | None:
    if payload["exp"] + leeway_s <= now:
        return Refusal(reason=Reason.SESSION_EXPIRED, detail=f"It expired {now - payload['exp']:.0f} s ago.")
    if max(payload.get("nbf", 0), payload.get("iat", 0)) > now + leeway_s:
        return _invalid("Its nbf or iat lies in the future.")
    return None


def _to_session(payload: Mapping[str, Any], options: SignedOptions) -> Session | Refusal:
    subject = payload.get(options.subject_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        return _invalid(f"{options.subject_claim} must be a text of 1 to {MAX_SUBJECT_CHARS} characters.")
    roles = payload.get(options.roles_claim, [])
    if isinstance(roles, str):
        roles = [roles]  # one role, not several in one text: nobody agrees on what separates them
    if not isinstance(roles, list) or not all(isinstance(role, str) and role for role in roles):
        return _invalid(f"{options.roles_claim} must be a role or a list of them.")
    session_id = None
    if options.session_claim is not None and options.session_claim in payload:
        session_id = payload[options.session_claim]
        if not isinstance(session_id, str) or not session_id:
            # falling back to the subject here would let a bug of the backend merge sessions unseen
            return _invalid(f"{options.session_claim} must be a text that is not empty.")
    return Session(
        subject=subject,
        roles=tuple(roles),
        ref=session_ref(options.ref_key, session_id=session_id, subject=subject),
        own_id=session_id is not None,
        # without iat a session counts as older than any revocation: cut off too often, never too seldom
        issued_at=float(payload.get("iat", 0)),
    )


def _check_discriminator(options: SignedOptions) -> None:
    typ = _media_type(options.typ)
    if typ == SCOPED_TYPE:
        raise ConfigurationError(
            f"session.signed.typ can't be {SCOPED_TYPE}: such a token is never a session."
        )
    if typ == "" and options.typ is not None:
        raise ConfigurationError("session.signed.typ is empty: leave it out, or name the header's typ.")
    # every JWT may say typ JWT, and so that tells nothing
    if not options.audience and not options.require and typ in ("", "jwt"):
        raise ConfigurationError(
            "session.signed must say what tells a session from other tokens of the same key, or a 7-day "
            'refresh token would pass as one: set require = { token_use = "access" } with a claim that only '
            "sessions have, or audience, or a typ other than JWT."
        )


def _load_key(options: SignedOptions) -> VerifyKey:
    if options.algorithm not in ALGORITHMS:
        raise ConfigurationError(
            f"session.signed.algorithm can't be {options.algorithm!r}: it is one of {', '.join(ALGORITHMS)}."
        )
    if options.algorithm in _SECRET_BYTES:
        key: object = _load_secret(options)
    else:
        key = _load_public_key(options)
    return VerifyKey(kid="", algorithm=options.algorithm, key=key)


def _load_secret(options: SignedOptions) -> bytes:
    least = _SECRET_BYTES[options.algorithm]
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(options.key or b"-")
    except InvalidKeyError:
        raise ConfigurationError(
            f"session.signed has a public key or a JWK as the secret of {options.algorithm}, with which "
            "everybody who knows it could sign: set the algorithm that the key is for, such as RS256."
        ) from None
    if len(options.key) < least:
        raise ConfigurationError(
            f"session.signed.secret has {len(options.key)} bytes, and {options.algorithm} needs {least} or "
            "more (RFC 7518 §3.2): set a longer one here and in the backend."
        )
    return options.key


def _load_public_key(options: SignedOptions) -> object:
    algorithm = options.algorithm
    if b"PRIVATE KEY-----" in options.key:
        raise ConfigurationError("session.signed has a private key: the relay needs only the public one.")
    try:
        key = load_pem_public_key(options.key)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"session.signed needs a public key in PEM form (-----BEGIN PUBLIC KEY-----) for {algorithm}."
        ) from None
    if algorithm in _RSA:
        fits = isinstance(key, rsa.RSAPublicKey)
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_BITS:
            raise ConfigurationError(
                f"session.signed has an RSA key of {key.key_size} bits, and {_RSA_BITS} is the least "
                "(RFC 7518 §3.3): let the backend sign with a longer one."
            )
    elif algorithm in _CURVES:
        fits = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES[algorithm])
    else:
        fits = isinstance(key, ed25519.Ed25519PublicKey)
    if not fits:
        raise ConfigurationError(f"session.signed has a public key of another kind than {algorithm} takes.")
    return key
