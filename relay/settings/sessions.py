"""The session section of relay.toml: who is behind a cookie, and the three ways to tell.

A module of its own because each way has its keys, and because what must not be combined is said here: which
settings a verifier needs, and that the one which takes everything stands last.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    field_validator,
    model_validator,
)

from relay.settings.sections import CookieName, JwksUrl, Section

VERIFIERS = ("signed", "upstream", "authjs")

_COOKIE = r"^[A-Za-z0-9_.-]{1,64}$"  # Auth.js's have a dot


def _verifiers(value: Any) -> tuple[str, ...]:
    """Take one name or a list of them. By hand: pydantic names a union's branches in its complaints."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(name in VERIFIERS for name in names):
        raise ValueError(f"Input should be {', '.join(VERIFIERS)}, or a list of them in their order")
    if len(set(names)) != len(names):
        raise ValueError("names one twice")
    if "upstream" in names[:-1]:
        raise ValueError("upstream takes every credential, so it must stand last")
    return tuple(names)


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port  # the port is read because reading it checks it
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not value.isascii() or not value.isprintable():
        raise ValueError("must be a URL like http://backend:9000/auth/me")
    if parts.username is not None or parts.fragment or " " in value:
        raise ValueError("must have no user, no password, no fragment and no spaces")
    return value


class ClaimNamesSection(Section):
    """Which claims of a session mean what."""

    subject: str = Field(
        default="sub",
        min_length=1,
        description='Claim that names the user; "user.id" is id in the object user.',
    )
    roles: str = Field(
        default="roles", min_length=1, description="Claim with the user's roles: a text or a list of texts."
    )
    session: str = Field(
        default="sid", min_length=1, description="Claim with the session's id, if the backend sets one."
    )
    issued_at: str = Field(
        default="iat",
        min_length=1,
        description="Claim with the log-in's time; a revocation of a user hits the sessions from before it.",
    )


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
    public_key: str | None = Field(
        default=None, description="The public key of the others, in PEM form, or one of the next two."
    )
    public_key_file: Path | None = Field(default=None, description="PEM file with the public key.")
    jwks_url: JwksUrl | None = Field(
        default=None,
        description="Where the backend publishes its public keys; https, or http on this machine itself.",
    )
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
        public = [key for key in (self.public_key, self.public_key_file, self.jwks_url) if key is not None]
        if self.algorithm.startswith("HS"):
            if self.secret is None or public:
                raise ValueError(f"{self.algorithm} needs secret, and no public_key")
        elif self.secret is not None or len(public) != 1:
            raise ValueError(
                f"{self.algorithm} needs public_key, public_key_file or jwks_url, one of them, and no secret"
            )
        return self


class Upstream(Section):
    """The session verifier `upstream`: the backend is asked."""

    me: Annotated[str, AfterValidator(_http_url)] = Field(
        description="URL that answers 200 and the claims as JSON to a session's token as Bearer, 401 to others."
    )
    timeout_s: float = Field(default=2.0, ge=0.1, le=10, description="How long it may take; then 503.")
    cache_s: float = Field(
        default=5.0,
        ge=0,
        le=5,
        description="How long its answers are kept, good or bad. Log-out ends it at once.",
    )


class Authjs(Section):
    """The session verifier `authjs`: the encrypted cookie of Auth.js v5 or NextAuth v4."""

    secrets: tuple[SecretStr, ...] = Field(
        min_length=1,
        max_length=4,
        description="The application's AUTH_SECRET or NEXTAUTH_SECRET; during a rotation both.",
    )
    cookies: tuple[Annotated[str, Field(pattern=_COOKIE)], ...] = Field(
        default=(),
        max_length=4,
        description="Names of the session's cookies. Default: those of v5 and v4, with __Secure- behind https.",
    )


class SessionSection(Section):
    """Who is behind a cookie."""

    cookie: CookieName = Field(
        default="__Host-access-token", description="Name of the session cookie of signed and upstream."
    )
    verifier: Annotated[
        str | tuple[str, ...], PlainValidator(_verifiers), PlainSerializer(list, return_type=list[str])
    ] = Field(
        default="signed",
        description="How a session is checked: signed, upstream, authjs, or a list of them in their order.",
    )
    ref_key: SecretStr = Field(
        description="Keys the session references in tokens and logs; the same on every node."
    )
    claims: ClaimNamesSection = ClaimNamesSection()
    signed: Signed | None = None
    upstream: Upstream | None = None
    authjs: Authjs | None = None
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
    def _has_what_it_needs(self) -> Self:
        needs = {
            "signed": (self.signed, "{ algorithm = …, … }"),
            "upstream": (self.upstream, '{ me = "http://backend:9000/auth/me" }'),
            "authjs": (self.authjs, '{ secrets = ["…"] }'),
        }
        for name, (section, example) in needs.items():
            if name in self.verifier and section is None:
                raise ValueError(f"verifier = '{name}' needs session.{name} = {example}")
            if name not in self.verifier and section is not None:
                raise ValueError(f"session.{name} is set, and verifier does not name {name}")
        return self
