"""The section [session] of relay.toml: how a session cookie is checked, with the keys of each session verifier."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from relay.settings.base import Section, checked_jwks_url, without_space_around
from relay.settings.sections import CookieName

VERIFIERS = ("signed", "upstream", "authjs")


def _verifiers(value: Any) -> tuple[str, ...]:
    """Accept one name or a list of names. It is done by hand: pydantic would report each branch of a union."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(name in VERIFIERS for name in names):
        raise ValueError(f"must be {', '.join(VERIFIERS)}, or a list of them in their order")
    if len(set(names)) != len(names):
        raise ValueError("names a verifier twice; name each once")
    if "upstream" in names[:-1]:
        raise ValueError("upstream accepts every form of credential, so it must be the last one")
    return tuple(names)


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not value.isascii() or not value.isprintable():
        raise ValueError("must be a URL like http://backend:9000/auth/me")
    if parts.username is not None or parts.fragment or " " in value:
        raise ValueError("must have no user, no password, no fragment and no spaces")
    return value


class ClaimNamesSection(Section):
    """Names of the claims of a session."""

    subject: str = Field(
        default="sub",
        min_length=1,
        description='Claim with the user; "user.id" is the member id of the object user.',
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
        description="Claim with the time of the log-in. A revocation of a user ends the sessions of earlier log-ins.",
    )

    @field_validator("*")
    @classmethod
    def _check_texts(cls, value: Any) -> Any:
        return without_space_around(value)


class Signed(Section):
    """The session verifier `signed`: the cookie is a JWT, and its key is known here."""

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
        "Ed25519",
    ] = Field(
        description="Algorithm of the signature; no other one is accepted. Ed25519 is the same as EdDSA."
    )
    secret: SecretStr | None = Field(
        default=None, description="Shared secret of HS256 (at least 32 bytes), HS384 (48) or HS512 (64)."
    )
    secret_base64: SecretStr | None = Field(
        default=None,
        description="The shared secret in base64, if the backend signs with the bytes that it encodes.",
    )
    public_key: str | None = Field(
        default=None,
        description="Public key of the other algorithms, such as PEM. Or use public_key_file or jwks_url.",
    )
    public_key_file: Path | None = Field(default=None, description="File with the public key.")
    jwks_private_http: bool = Field(
        default=False,
        description="Whether jwks_url may be http in a private network. Its machines could then sign any session.",
    )
    jwks_url: str | None = Field(
        default=None,
        description="URL of the backend's public keys: https, or http on this machine.",
    )
    issuer: str | None = Field(default=None, description="Required iss.")
    audience: str | None = Field(
        default=None, description="Required aud. It distinguishes a session from other JWTs."
    )
    typ: str | None = Field(
        default=None, description="Required typ in the header. It distinguishes a session from other JWTs."
    )
    require: dict[str, StrictStr | StrictBool | StrictInt | StrictFloat] = Field(
        default={},
        description="Claims with their required values: texts, numbers, true or false. They distinguish a session from "
        "other JWTs of the same key.",
    )

    @field_validator("issuer", "audience", "typ", "require")
    @classmethod
    def _check_texts(cls, value: Any) -> Any:
        return without_space_around(value)

    @field_validator("jwks_url")
    @classmethod
    def _check_jwks_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        return checked_jwks_url(value, info)

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        public = [key for key in (self.public_key, self.public_key_file, self.jwks_url) if key is not None]
        secrets = [secret for secret in (self.secret, self.secret_base64) if secret is not None]
        if self.algorithm.startswith("HS"):
            if len(secrets) != 1 or public:
                raise ValueError(
                    f"{self.algorithm} needs secret or secret_base64, and no public_key, public_key_file or jwks_url"
                )
        elif secrets or len(public) != 1:
            raise ValueError(
                f"{self.algorithm} needs one of public_key, public_key_file and jwks_url, and no secret"
            )
        return self


class Upstream(Section):
    """The session verifier `upstream`: the backend checks the credential."""

    me: Annotated[str, AfterValidator(_http_url)] = Field(
        description="URL that answers 200 with the claims as JSON to the Bearer token of a session, and 401 otherwise."
    )
    timeout_s: float = Field(
        default=2.0, ge=0.1, le=10, description="Seconds that the backend may take. Then the answer is 503."
    )
    cache_s: float = Field(
        default=5.0,
        ge=0,
        le=5,
        description="Seconds for which an answer is kept, good or bad. A log-out ends it at once.",
    )


class Authjs(Section):
    """The session verifier `authjs`: the cookie is the encrypted one of Auth.js v5 or NextAuth v4."""

    secrets: tuple[SecretStr, ...] = Field(
        min_length=1,
        max_length=4,
        description="AUTH_SECRET or NEXTAUTH_SECRET of the application; during a rotation the new and the old one.",
    )
    cookies: tuple[CookieName, ...] = Field(
        default=(),
        max_length=4,
        description="Names of the session cookies. Default: those of v5 and v4, with __Secure- if public.url is https.",
    )


class SessionSection(Section):
    """The user's session: its cookie and its verifiers."""

    cookie: CookieName = Field(
        default="__Host-access-token", description="Name of the session cookie for signed and upstream."
    )
    verifier: Annotated[
        str | tuple[str, ...], PlainValidator(_verifiers), PlainSerializer(list, return_type=list[str])
    ] = Field(
        default="signed",
        description="How a session is checked: signed, upstream, authjs, or a list of them in their order.",
    )
    ref_key: SecretStr = Field(
        description="Secret key of the session references in tokens and logs. All nodes must have the same one."
    )
    claims: ClaimNamesSection = ClaimNamesSection()
    signed: Signed | None = None
    upstream: Upstream | None = None
    authjs: Authjs | None = None
    leeway_s: int = Field(
        default=60,
        ge=0,
        le=300,
        description="Seconds by which the clocks of the relay and of the server that makes sessions may differ.",
    )
    max_s: int = Field(
        default=604_800,
        ge=60,
        le=315_360_000,
        description="Longest life of a log-in and of a session token in seconds; longer ones are refused. "
        "Revocations are kept for that time. With authjs the default is 2592000, as in Auth.js.",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_of_authjs(cls, values: Any) -> Any:
        """Set `max_s` to Auth.js's own default: its sessions would else be refused as too long."""
        if isinstance(values, dict) and "authjs" in values:
            return {"max_s": 2_592_000} | values
        return values

    @field_validator("ref_key")
    @classmethod
    def _check_ref_key(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters; `openssl rand -hex 32` makes one")
        return value

    @model_validator(mode="after")
    def _check_verifiers(self) -> Self:
        needs = {
            "signed": (self.signed, "{ algorithm = …, … }"),
            "upstream": (self.upstream, '{ me = "http://backend:9000/auth/me" }'),
            "authjs": (self.authjs, '{ secrets = ["…"] }'),
        }
        for name, (section, example) in needs.items():
            if name in self.verifier and section is None:
                raise ValueError(f"verifier = '{name}' needs session.{name} = {example}")
            if name not in self.verifier and section is not None:
                raise ValueError(
                    f"session.{name} is set, and verifier does not name {name}; add it there, or remove this"
                )
        return self
