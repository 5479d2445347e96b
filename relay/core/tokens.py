"""Scoped tokens: the issuer mints them, and the service that protects an endpoint verifies them.

A scoped token is a JWT (RFC 7519) with `typ: scoped+jwt` (explicit typing, RFC 8725 §3.11). It is signed with EdDSA
over Ed25519 (RFC 8037). It is valid for one endpoint (`aud`), one browser origin, at most 30 seconds and one use.
The key pair is asymmetric, so a stream node can verify tokens and can't mint them.

No function here reads a clock: `now` is an argument, in Unix seconds. Single use is checked elsewhere, because it
needs a store (`relay.state`). Its key is `jti` and never the text of the token.

`verify` stops at the first refusal, for the gate. `examine` collects all refusals, for people. Both make the same
checks in the same order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import msgspec

from relay.core.errors import Reason, Refusal
from relay.core.grants import NO_OPTIONS, OPTION_CLAIMS, GrantOptions
from relay.core.jws import Compact, Signer, VerifyKey, check_signature, parse_compact
from relay.core.patterns import is_pattern
from relay.core.scope import MAX_CHANNELS, Scope

TYPE: Final = "scoped+jwt"
ALGORITHM: Final = "EdDSA"
SCOPE: Final = "subscribe"
"""Scope of a token that opens a connection to the relay, for the channels that it names."""
SERVICE_SCOPE: Final = "call"
"""Scope of a token for another service. It names no channels, so two checks refuse a token of the wrong kind."""
VERSION: Final = 1
MAX_TOKEN_BYTES: Final = 4096
"""Longest token. 32 patterns of 40 characters make 2,461 bytes. A parser must not have to read megabytes."""
MAX_LIFETIME_S: Final = 30
"""Longest life of a token. A browser needs a second to connect. A stolen token must be worthless soon."""
LEEWAY_S: Final = 2
"""Seconds by which clocks may differ. NTP keeps servers within milliseconds. Virtual machines drift more."""
USED_KEPT_S: Final = 120
"""Seconds after its end for which a used token is remembered: far more than `LEEWAY_S`. If a clock is set back, the
token must not be usable again."""

_HEADER_NAMES = frozenset({"typ", "alg", "kid"})
_TEXTS = ("iss", "aud", "sub", "jti", "scope", "sid")
_TIMES = ("iat", "nbf", "exp")
_CLAIMS = frozenset({*_TEXTS, *_TIMES, "origin", "ver"})
_OPTIONAL_TIMES = ("session_exp", "session_iat")
_OPTIONAL = frozenset({*_OPTIONAL_TIMES, *OPTION_CLAIMS, "channels", "asker"})

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Whole = Annotated[int, msgspec.Meta(gt=0, lt=1 << 53)]
_WellFormed = msgspec.defstruct(
    "_WellFormed",
    [
        *((name, _Text) for name in _TEXTS),
        *((name, _Whole) for name in _TIMES),
        ("origin", str),
        ("ver", Literal[VERSION]),
        *((name, _Whole, 1) for name in (*_OPTIONAL_TIMES, *OPTION_CLAIMS)),
        ("channels", Any, None),  # see `_check_channels`
        ("asker", _Text, "-"),
    ],
    forbid_unknown_fields=True,
)
"""What `_wrong_claims` finds nothing wrong in, as msgspec checks it in a tenth of the time. If you change one of them,
change the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """The issuer's private key. `key` is an Ed25519 private key object."""

    kid: str
    key: Any = field(repr=False)
    signer: Signer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        headers = {"typ": TYPE, "kid": self.kid}
        object.__setattr__(self, "signer", Signer(self.key, algorithm=ALGORITHM, headers=headers))


class Claims(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The claims of one scoped token. Times are whole Unix seconds; `origin` is "" if the token has none.

    `channels` is empty for tokens of `SERVICE_SCOPE` only.
    """

    issuer: str
    audience: str
    subject: str
    session_ref: str
    channels: tuple[str, ...]
    origin: str
    jti: str
    issued_at: int
    expires_at: int
    session_expires_at: int | None = None
    session_issued_at: int | None = None
    options: GrantOptions = NO_OPTIONS
    asker: str | None = None
    scope: str = SCOPE

    @property
    def channel_scope(self) -> Scope:
        """The channels that the token grants."""
        return Scope(self.channels)

    def record(self, *, kid: str = "") -> dict[str, Any]:
        """Return the token's fields of a record of the audit log. `kid` names the key that signed it, "" if unknown."""
        return {
            "jti": self.jti,
            **({"kid": kid} if kid else {}),
            "aud": self.audience,
            "scope": self.scope,
            "channels": list(self.channels),
            "iat": self.issued_at,
            "exp": self.expires_at,
        }


class Expected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a token must say to be accepted. With `origin` None the origin is not compared here."""

    issuer: str
    audience: str
    origin: str | None
    scope: str = SCOPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The readable parts of a token, and all refusals in the order of the checks."""

    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    refusals: tuple[Refusal, ...]


def mint(claims: Claims, key: SigningKey) -> str:
    """Return the signed token for `claims`.

    Raises:
        ValueError: if `verify` would refuse the claims (lifetime, channels, an empty or too long string).
    """
    payload: dict[str, Any] = {
        "iss": claims.issuer,
        "aud": claims.audience,
        "sub": claims.subject,
        "iat": claims.issued_at,
        "nbf": claims.issued_at,
        "exp": claims.expires_at,
        "jti": claims.jti,
        "scope": claims.scope,
        "sid": claims.session_ref,
        "origin": claims.origin,
        "ver": VERSION,
    }
    if claims.scope != SERVICE_SCOPE or claims.channels:
        payload["channels"] = list(claims.channels)
    if claims.session_expires_at is not None:
        payload["session_exp"] = claims.session_expires_at
    if claims.session_issued_at is not None:
        payload["session_iat"] = claims.session_issued_at
    payload |= claims.options.to_claims()
    if claims.asker is not None:
        payload["asker"] = claims.asker
    if refusal := next(_check_claims(payload), None) or next(_check_lifetime(payload), None):
        raise ValueError(f"these claims can't be minted: {str(refusal).removesuffix('.')}")
    text = key.signer.sign(msgspec.json.encode(payload))
    if len(text) > MAX_TOKEN_BYTES:
        raise ValueError(f"the token would have {len(text)} bytes, more than {MAX_TOKEN_BYTES}")
    return text


def verify(
    text: str, keys: Mapping[str, VerifyKey], *, now: float, expected: Expected
) -> tuple[Claims, str] | Refusal:
    """Check everything about a token that needs no store. Returns its claims and `kid`, or the first refusal.

    The caller must then check `origin` if `expected.origin` was None, then revocations, and claim `jti` last.
    """
    token = parse_compact(text, max_bytes=MAX_TOKEN_BYTES)
    if isinstance(token, Refusal):
        return token
    if refusal := next(_check(token, keys, now=now, expected=expected), None):
        return refusal
    return _to_claims(token.payload, expected), keys[token.header["kid"]].kid


def signed_claims(text: str, keys: Mapping[str, VerifyKey]) -> tuple[Claims, str] | None:
    """Return the claims and the `kid` of a token with a right signature, for the audit record of its refusal.

    Returns None for every other token. Expiry, issuer and audience are not checked, so never accept a token by this.
    """
    token = parse_compact(text, max_bytes=MAX_TOKEN_BYTES)
    if isinstance(token, Refusal) or any(_check_header(token, keys)) or any(_check_claims(token.payload)):
        return None
    payload = token.payload
    expected = Expected(issuer=payload["iss"], audience=payload["aud"], origin=None, scope=payload["scope"])
    return _to_claims(payload, expected), keys[token.header["kid"]].kid


def claimed_identity(text: str) -> dict[str, str]:
    """Return what a token says about itself without a proof: `kid`, `jti` and `user`, as far as it has them.

    It is for the audit record of a refusal, where it is marked as claimed. A token of another type says nothing here:
    the `jti` of a backend's token may be the id of a session, which does not belong into the log.
    """
    token = parse_compact(text, max_bytes=MAX_TOKEN_BYTES)
    if isinstance(token, Refusal) or token.header.get("typ") != TYPE:
        return {}
    found = (
        ("kid", token.header.get("kid")),
        ("jti", token.payload.get("jti")),
        ("user", token.payload.get("sub")),
    )
    return {name: value for name, value in found if isinstance(value, str) and value}


def examine(
    text: str, keys: Mapping[str, VerifyKey], *, now: float, expected: Expected | None
) -> Examination:
    """Explain a token to a person: its content, and all reasons why it would be refused now.

    With `expected` None, the checks against an endpoint (issuer, audience, origin, scope) are skipped.
    """
    token = parse_compact(text, max_bytes=MAX_TOKEN_BYTES)
    if isinstance(token, Refusal):
        return Examination(header={}, payload={}, refusals=(token,))
    refusals = tuple(_check(token, keys, now=now, expected=expected))
    return Examination(header=token.header, payload=token.payload, refusals=refusals)


def _check(
    token: Compact, keys: Mapping[str, VerifyKey], *, now: float, expected: Expected | None
) -> Iterator[Refusal]:
    yield from _check_header(token, keys)
    has_wrong_claims = False
    for refusal in _check_claims(token.payload):
        has_wrong_claims = True
        yield refusal
    if has_wrong_claims:  # values of the wrong type can't be compared
        return
    yield from _check_times(token.payload, now=now)
    if expected is not None:
        yield from _check_expected(token.payload, expected)


def _check_header(token: Compact, keys: Mapping[str, VerifyKey]) -> Iterator[Refusal]:
    header = token.header
    if extra := sorted(header.keys() - _HEADER_NAMES):
        # With jku, x5u or jwk a token would name its own key. With crit it would demand an extension.
        yield Refusal(reason=Reason.TOKEN_HEADER, detail=f"The header may not have {_listed(extra)}.")
    if header.get("typ") != TYPE:
        yield Refusal(reason=Reason.TOKEN_HEADER, detail=f"The header's typ is not {TYPE}.")
    if header.get("alg") != ALGORITHM:
        yield Refusal(reason=Reason.TOKEN_HEADER, detail=f"The header's alg is not {ALGORITHM}.")
        return
    kid = header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        yield Refusal(reason=Reason.TOKEN_KEY_UNKNOWN)
    elif refusal := check_signature(token, key):
        yield refusal


def _listed(names: list[str]) -> str:
    """Return names from an untrusted token, printable and cut to a length."""
    return ", ".join(map(repr, names))[:80]


def _check_claims(payload: Mapping[str, Any]) -> Iterator[Refusal]:
    if not _is_well_formed(payload):
        yield from _wrong_claims(payload)
    yield from _check_channels(payload)


def _is_well_formed(payload: Mapping[str, Any]) -> bool:
    try:
        msgspec.convert(payload, _WellFormed)
    except msgspec.ValidationError:
        return False
    return True


def _wrong_claims(payload: Mapping[str, Any]) -> Iterator[Refusal]:
    def wrong(detail: str) -> Refusal:
        return Refusal(reason=Reason.TOKEN_CLAIMS, detail=detail)

    if missing := sorted(_CLAIMS - payload.keys()):
        yield wrong(f"Missing: {', '.join(missing)}.")
    if extra := sorted(payload.keys() - _CLAIMS - _OPTIONAL):
        yield wrong(f"Unknown: {_listed(extra)}.")
    for name in (*_TEXTS, "asker"):
        if name in payload and (not isinstance(payload[name], str) or not payload[name]):
            yield wrong(f"{name} must be a string that is not empty.")
    for name in (*_TIMES, *_OPTIONAL_TIMES):
        if name in payload and not _is_whole(payload[name]):
            yield wrong(f"{name} must be whole Unix seconds.")
    for name in OPTION_CLAIMS:
        if name in payload and not _is_whole(payload[name]):
            yield wrong(f"{name} must be a whole number above 0.")
    if "origin" in payload and not isinstance(payload["origin"], str):
        yield wrong("origin must be a string.")
    if "ver" in payload and (type(payload["ver"]) is not int or payload["ver"] != VERSION):
        yield wrong(f"ver must be {VERSION}.")


def _is_whole(value: object) -> bool:
    """Tell whether a value is a whole number above 0 that every JSON parser reads exactly (RFC 8259 §6)."""
    return type(value) is int and 0 < value < 1 << 53


def _check_channels(payload: Mapping[str, Any]) -> Iterator[Refusal]:
    def wrong(detail: str) -> Refusal:
        return Refusal(reason=Reason.TOKEN_CLAIMS, detail=detail)

    channels = payload.get("channels", [])
    if payload.get("scope") == SERVICE_SCOPE:
        if channels != []:
            yield wrong(f"A token of scope {SERVICE_SCOPE} must have no channels.")
    elif "channels" not in payload:
        yield wrong("Missing: channels.")
    elif not isinstance(channels, list) or not 0 < len(channels) <= MAX_CHANNELS:
        yield wrong(f"channels must be a list of 1 to {MAX_CHANNELS} entries.")
    elif not all(isinstance(channel, str) and is_pattern(channel) for channel in channels):
        yield wrong("channels must contain channel names and patterns only.")


def _check_lifetime(payload: Mapping[str, Any]) -> Iterator[Refusal]:
    lifetime = payload["exp"] - payload["iat"]
    if not 0 < lifetime <= MAX_LIFETIME_S:
        yield Refusal(
            reason=Reason.TOKEN_LIFETIME,
            detail=f"Its lifetime is {lifetime} s. A token lives 1 to {MAX_LIFETIME_S} s.",
        )


def _check_times(payload: Mapping[str, Any], *, now: float) -> Iterator[Refusal]:
    yield from _check_lifetime(payload)
    if payload["iat"] > now + LEEWAY_S or payload["nbf"] > now + LEEWAY_S:
        yield Refusal(reason=Reason.TOKEN_NOT_YET_VALID)
    if payload["exp"] + LEEWAY_S <= now:
        yield Refusal(reason=Reason.TOKEN_EXPIRED, detail=f"It expired {now - payload['exp']:.0f} s ago.")


def _check_expected(payload: Mapping[str, Any], expected: Expected) -> Iterator[Refusal]:
    if payload["iss"] != expected.issuer:
        yield Refusal(reason=Reason.TOKEN_ISSUER, detail=f"It is from {payload['iss'][:80]!r}.")
    if payload["aud"] != expected.audience:
        yield Refusal(reason=Reason.TOKEN_AUDIENCE, detail=f"It is for {payload['aud'][:120]!r}.")
    if payload["scope"] != expected.scope:
        yield Refusal(reason=Reason.TOKEN_SCOPE, detail=f"Its scope is {payload['scope'][:80]!r}.")
    if expected.origin is not None and payload["origin"] != expected.origin:
        yield Refusal(reason=Reason.TOKEN_ORIGIN, detail=f"It was requested from {payload['origin'][:80]!r}.")


def _to_claims(payload: Mapping[str, Any], expected: Expected) -> Claims:
    """Return the claims of a payload that is as expected. Strings that all tokens share are kept in memory once."""
    return Claims(
        issuer=expected.issuer,
        audience=expected.audience,
        subject=payload["sub"],
        session_ref=payload["sid"],
        channels=tuple(payload.get("channels", ())),
        origin=payload["origin"],
        jti=payload["jti"],
        issued_at=payload["iat"],
        expires_at=payload["exp"],
        session_expires_at=payload.get("session_exp"),
        session_issued_at=payload.get("session_iat"),
        options=GrantOptions.from_claims(payload),
        asker=payload.get("asker"),
        scope=expected.scope,
    )
