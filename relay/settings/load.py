"""Settings: relay.toml and RELAY_* variables, checked as a whole before anything starts.

Variables win over the file. A nested setting has two underscores: RELAY_PUBLIC__URL. An unknown key is refused,
in the file and in the environment, because a misspelt security setting that is silently ignored is a hole.
Each mistake is one line that names the key, and the file or the variable that it came from, and never a value.
Secrets are `SecretStr`: they show in no repr, log or dump.

The shells never see this module: `relay.server.options` turns it into each one's own options.
"""

import itertools
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from relay.core.errors import ConfigurationError
from relay.core.patterns import may_overlap
from relay.settings.endpoints import AnyEndpoint, AnyGrant, Endpoint, ServiceEndpoint, misfit
from relay.settings.sections import (
    Audit,
    Bff,
    Csrf,
    Engine,
    Limits,
    ListenSection,
    Log,
    Name,
    Operator,
    Public,
    Publisher,
    Tokens,
)
from relay.settings.sessions import SessionSection

OTHER_VARIABLES = frozenset(
    {
        "RELAY_CONFIG",
        "RELAY_OPERATOR_KEY",
        "RELAY_PUBLISH_KEY",
        "RELAY_SESSION_TOKEN",
        "RELAY_TEST_VENV",
        "RELAY_VENV",
        "RELAY_VECTORS",
        "RELAY_MARKET",
    }
)
"""Variables that the commands and the tests read themselves; no settings."""


class Settings(BaseSettings):
    """All settings of a relay."""

    model_config = SettingsConfigDict(
        env_prefix="RELAY_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    public: Public
    listen: ListenSection = ListenSection()
    session: SessionSection
    tokens: Tokens = Tokens()
    endpoints: dict[Name, AnyEndpoint] = Field(min_length=1)
    grants: dict[str, dict[Name, AnyGrant]] = Field(
        default={},
        description='Patterns that a role may ask for at an endpoint, like `grants.trader.prices = ["prices.>"]`.',
    )
    publishers: dict[Name, Publisher] = {}
    operators: dict[Name, Operator] = {}
    csrf: Csrf = Csrf()
    bff: Bff = Bff()
    engine: Engine = Engine()
    limits: Limits = Limits()
    audit: Audit = Audit()
    log: Log = Log()

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Browser origins that may open sockets."""
        return frozenset(self.public.allowed_origins or (self.public.url,))

    @property
    def sockets(self) -> dict[str, Endpoint]:
        """The endpoints that the stream serves, by name."""
        return {name: found for name, found in self.endpoints.items() if isinstance(found, Endpoint)}

    @property
    def services(self) -> dict[str, ServiceEndpoint]:
        """The endpoints of other services, by name."""
        return {name: found for name, found in self.endpoints.items() if isinstance(found, ServiceEndpoint)}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        default = self.tokens.default_endpoint
        if default not in self.endpoints:
            raise ValueError(f"tokens.default_endpoint: there is no [endpoints.{default}]")
        if default in self.services:
            raise ValueError(f"tokens.default_endpoint: {default} is a service; name a socket")
        paths = [endpoint.path for endpoint in self.sockets.values()]
        if len(set(paths)) != len(paths):
            raise ValueError("endpoints: two endpoints have the same path")
        urls = [endpoint.url for endpoint in self.services.values()]
        if len(set(urls)) != len(urls):
            # a token for one would be good at the other, whatever the grants say
            raise ValueError("endpoints: two services have the same url")
        for role, by_endpoint in self.grants.items():
            for name, grant in by_endpoint.items():
                if name not in self.endpoints:
                    raise ValueError(f"grants.{role}.{name}: there is no [endpoints.{name}]")
                if complaint := misfit(name, self.endpoints[name], grant):
                    raise ValueError(f"grants.{role}.{name}: {complaint}")
        return self

    @model_validator(mode="after")
    def _one_mode_a_channel(self) -> Self:
        for (one, first), (other, second) in itertools.combinations(self.sockets.items(), 2):
            if first.mode is not second.mode and any(
                may_overlap(a, b) for a in first.channels for b in second.channels
            ):
                raise ValueError(
                    f"endpoints.{one} and endpoints.{other} share channels, so they must have the same mode"
                )
        return self

    @model_validator(mode="after")
    def _one_publisher_where_exclusive(self) -> Self:
        for (one, first), (other, second) in itertools.combinations(self.publishers.items(), 2):
            shared = next(
                ((a, b) for a in first.channels for b in second.channels if may_overlap(a, b)), None
            )
            if shared is not None and (first.exclusive or second.exclusive):
                raise ValueError(
                    f"publishers.{one} ({shared[0]}) and publishers.{other} ({shared[1]}) share channels, and "
                    f"publishers.{one if first.exclusive else other} is exclusive"
                )
        return self

    @model_validator(mode="after")
    def _one_key_one_purpose(self) -> Self:
        publishing = {digest for publisher in self.publishers.values() for digest in publisher.secret_sha256}
        for name, operator in self.operators.items():
            if publishing.intersection(operator.secret_sha256):
                raise ValueError(
                    f"operators.{name}.secret_sha256: a publisher has this key; make one with `relay keys operator`"
                )
        return self

    @model_validator(mode="after")
    def _cookies_that_browsers_take(self) -> Self:
        https = self.public.url.startswith("https://")
        for cookie in (self.session.cookie, self.bff.refresh_cookie):
            if cookie.startswith(("__Host-", "__Secure-")) and not https:
                raise ValueError(
                    f"session.cookie, bff.refresh_cookie: browsers refuse {cookie} over http; "
                    "use https in public.url, or a name without the prefix while developing"
                )
        if self.session.cookie == self.bff.refresh_cookie:
            raise ValueError("session.cookie and bff.refresh_cookie must differ")
        return self

    @model_validator(mode="after")
    def _addresses_that_tls_has(self) -> Self:
        for name, url in (("url", self.public.url), ("stream_url", self.public.stream_url)):
            if self.listen.tls is not None and not url.startswith(("https://", "wss://")):
                raise ValueError(
                    f"public.{name}: begins with {url.partition('/')[0]}//, and with listen.tls the listener "
                    "speaks nothing but TLS; use https:// and wss://"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read variables first, then the file that `load` names."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(path: Path | None) -> Settings:
    """Read the settings from `path` (None: variables alone) and RELAY_* variables.

    Relative paths in the file are meant from the file's own folder.

    Raises:
        ConfigurationError: with one line for each mistake.
    """
    variables = _variables()
    mistakes = [
        f"{name}: unknown variable; settings are RELAY_SECTION__KEY, like RELAY_PUBLIC__URL"
        for upper, name in variables.items()
        if upper.removeprefix("RELAY_").lower().split("__")[0] not in Settings.model_fields
    ]
    if path is not None:
        _readable_toml(path)

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        settings = FromFile()  # the values come from the sources
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        inner = {item["loc"][:count] for item in found for count in range(len(item["loc"]))}
        # a list whose only item was refused is not too short as well
        mistakes += [_line(item, path, variables) for item in found if item["loc"] not in inner]
    except (SettingsError, RecursionError) as error:
        mistakes.append(_not_json(str(error), variables))
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return _from_folder(settings, path.parent if path else Path())


def _readable_toml(path: Path) -> None:
    try:
        tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file; name the settings with --config") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: can't be read: it is not UTF-8") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # besides TOMLDecodeError: a number of 5000 digits, 1000 brackets
        raise ConfigurationError(f"{path}: is not TOML: {_printable(error)}") from None


def _variables() -> dict[str, str]:
    """Return the variables that may be settings: their name in upper case, and as it is. Case does not count."""
    names = {name.upper(): name for name in sorted(os.environ)}
    return {
        upper: name
        for upper, name in names.items()
        if upper.startswith("RELAY_") and upper not in OTHER_VARIABLES
    }


def _not_json(error: str, variables: dict[str, str]) -> str:
    """Say which variable is no JSON. The library names the section only, and never the value, which may be secret."""
    section = re.search(r'field "(\w+)"', error)
    prefix = f"RELAY_{section[1]}".upper() if section else "RELAY_"
    names = [
        name for upper, name in variables.items() if f"{upper}__".startswith(f"{prefix}__") or not section
    ]
    return (
        f"{' or '.join(names)}: is not JSON that can be read; a list is given as '[\"…\"]', a section as '{{…}}', "
        "and one setting as RELAY_SECTION__KEY"
    )


def _line(item: Any, path: Path | None, variables: dict[str, str]) -> str:
    parts = [_printable(part) for part in item["loc"]]
    message = item["msg"].removeprefix("Value error, ")
    match item["type"]:
        case "extra_forbidden":
            message = "unknown key; see the table in relay/settings/README.md"
        case "missing":
            message = "is missing"
    # the variable may hold the setting itself, or as JSON the list or section that the setting is in
    names = ["__".join(["RELAY_" + parts[0], *parts[1:count]]).upper() for count in range(len(parts), 0, -1)]
    variable = next((variables[name] for name in names if name in variables), None)
    where = variable or (str(path) if path else "settings")
    return ": ".join(text for text in (where, ".".join(parts), message) if text)


def _printable(text: object) -> str:
    return str(text) if str(text).isprintable() else ascii(text)[1:-1]


def _from_folder(settings: Settings, folder: Path) -> Settings:
    """Make the relative paths absolute, so that the process's working folder does not matter."""

    def at(path: Path) -> Path:
        return (folder / path).resolve()

    signed = settings.session.signed
    if signed is not None and signed.public_key_file is not None:
        signed = signed.model_copy(update={"public_key_file": at(signed.public_key_file)})
    tls = {
        name: files.model_copy(update={"cert": at(files.cert), "key": at(files.key)})
        for name in ("tls", "internal_tls")
        if (files := getattr(settings.listen, name)) is not None
    }
    return settings.model_copy(
        update={
            "listen": settings.listen.model_copy(update=tls),
            "session": settings.session.model_copy(update={"signed": signed}),
            "tokens": settings.tokens.model_copy(update={"keys_dir": at(settings.tokens.keys_dir)}),
            "engine": settings.engine.model_copy(update={"state_path": at(settings.engine.state_path)}),
            "audit": settings.audit.model_copy(
                update={"path": at(settings.audit.path), "keys_dir": at(settings.audit.keys_dir)}
            ),
        }
    )
