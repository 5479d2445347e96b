"""Settings: relay.toml and RELAY_* variables, checked as a whole before anything starts.

Variables win over the file. The variable of a nested setting has two underscores: RELAY_PUBLIC__URL. Unknown keys are
refused, in the file and in the environment: a misspelt security setting must not be ignored. Secrets are `SecretStr`,
so that no repr, log or dump shows them.

The other rooms never see the settings: `relay.server.options` gives each of them its own options.
"""

import difflib
import itertools
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from relay.core.errors import ConfigurationError
from relay.core.patterns import may_overlap
from relay.settings.endpoints import AnyEndpoint, AnyGrant, Endpoint, ServiceEndpoint, grant_problem
from relay.settings.proxy import BffSection
from relay.settings.sections import (
    Audit,
    Channels,
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
"""Variables that the commands and the tests read themselves. They are not settings."""


_OF_KUBERNETES = re.compile(
    r"RELAY_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in each pod for a Service named relay. They are not settings either."""


class Settings(BaseSettings):
    """All settings of a relay."""

    model_config = SettingsConfigDict(
        env_prefix="RELAY_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )
    file_contents: ClassVar[dict[str, Any]] = {}

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
    bff: BffSection = BffSection()
    engine: Engine = Engine()
    limits: Limits = Limits()
    channels: Channels = Channels()
    audit: Audit = Audit()
    log: Log = Log()

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Browser origins that may ask for tokens and open sockets. public.url is always one of them."""
        return frozenset({self.public.url, *self.public.allowed_origins})

    @property
    def sockets(self) -> dict[str, Endpoint]:
        """The endpoints that the stream serves, by name."""
        return {name: found for name, found in self.endpoints.items() if isinstance(found, Endpoint)}

    @property
    def services(self) -> dict[str, ServiceEndpoint]:
        """The endpoints of other services, by name."""
        return {name: found for name, found in self.endpoints.items() if isinstance(found, ServiceEndpoint)}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        default = self.tokens.default_endpoint
        if default not in self.endpoints:
            raise ValueError(
                f"tokens.default_endpoint: there is no [endpoints.{default}]; name one of {_names(self.sockets)}"
            )
        if default in self.services:
            raise ValueError(
                f"tokens.default_endpoint: {default} is a service; name a socket, one of {_names(self.sockets)}"
            )
        paths = [endpoint.path for endpoint in self.sockets.values()]
        if len(set(paths)) != len(paths):
            raise ValueError("endpoints: two endpoints have the same path; give each its own")
        urls = [endpoint.url for endpoint in self.services.values()]
        if len(set(urls)) != len(urls):
            # a token for one service would be valid at the other, whatever the grants say
            raise ValueError("endpoints: two services have the same url; give each its own")
        for role, by_endpoint in self.grants.items():
            for name, grant in by_endpoint.items():
                if name not in self.endpoints:
                    raise ValueError(
                        f"grants.{role}.{name}: there is no [endpoints.{name}]; "
                        f"name one of {_names(self.endpoints)}"
                    )
                if problem := grant_problem(name, self.endpoints[name], grant):
                    raise ValueError(f"grants.{role}.{name}: {problem}")
        return self

    @model_validator(mode="after")
    def _check_modes(self) -> Self:
        for (one, first), (other, second) in itertools.combinations(self.sockets.items(), 2):
            if first.mode is not second.mode and any(
                may_overlap(a, b) for a in first.channels for b in second.channels
            ):
                raise ValueError(
                    f"endpoints.{one} and endpoints.{other} share channels; give them the same mode"
                )
        return self

    @model_validator(mode="after")
    def _check_exclusive_publishers(self) -> Self:
        for (one, first), (other, second) in itertools.combinations(self.publishers.items(), 2):
            shared = next(
                ((a, b) for a in first.channels for b in second.channels if may_overlap(a, b)), None
            )
            if shared is not None and (first.exclusive or second.exclusive):
                raise ValueError(
                    f"publishers.{one} ({shared[0]}) and publishers.{other} ({shared[1]}) share channels, and "
                    f"publishers.{one if first.exclusive else other} is exclusive; give them other channels"
                )
        return self

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        publishing = {digest for publisher in self.publishers.values() for digest in publisher.secret_sha256}
        for name, operator in self.operators.items():
            if publishing.intersection(operator.secret_sha256):
                raise ValueError(
                    f"operators.{name}.secret_sha256: a publisher has this key; make one with `relay keys operator`"
                )
        return self

    @model_validator(mode="after")
    def _check_cookies(self) -> Self:
        https = self.public.url.startswith("https://")
        access, refresh = self.session.cookie, self.bff.refresh_cookie
        used = {}  # without a log-in nothing sets them, and authjs alone does not read its own
        if self.bff.backend is not None:
            used["bff.refresh_cookie"] = refresh
        if self.bff.backend is not None or self.session.verifier != ("authjs",):
            used["session.cookie"] = access
        for setting, cookie in used.items():
            if cookie.startswith(("__Host-", "__Secure-")) and not https:
                raise ValueError(
                    f"{setting}: browsers refuse {cookie} over http; "
                    "use https in public.url, or a name without the prefix while developing"
                )
        if self.bff.same_site == "none" and not https:
            raise ValueError(
                "bff.same_site: browsers refuse cookies with SameSite=None over http; use https in public.url, or lax"
            )
        for one, other in itertools.permutations((access, refresh)):
            if re.fullmatch(re.escape(one) + r"(\.[0-9]{1,2})?", other):
                raise ValueError(
                    "session.cookie and bff.refresh_cookie must differ, and none may be a chunk of the other (NAME.0); "
                    "rename one"
                )
        return self

    @model_validator(mode="after")
    def _check_proxied_cookies(self) -> Self:
        authjs = self.session.authjs
        own = {self.session.cookie, self.bff.refresh_cookie, *(authjs.cookies if authjs else ())}
        names = {name.lower() for name in own}
        for setting in ("request_cookies", "response_cookies"):
            for name in getattr(self.bff.proxy, setting):
                if name.lower() in names:
                    raise ValueError(
                        f"bff.proxy.{setting}: {name} is a cookie of the session, which never goes through the proxy"
                    )
        return self

    @model_validator(mode="after")
    def _check_tls_urls(self) -> Self:
        for name, url in (("url", self.public.url), ("stream_url", self.public.stream_url)):
            if self.listen.tls is not None and not url.startswith(("https://", "wss://")):
                raise ValueError(
                    f"public.{name}: begins with {url.partition('/')[0]}//, but a listener with listen.tls speaks only "
                    "TLS; use https:// and wss://"
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
        """Read variables first, then the file that `load` has read."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, cls.file_contents)


def load(path: Path | None) -> Settings:
    """Read the settings from `path` (None: variables alone) and RELAY_* variables.

    Relative paths in the file are relative to the file's folder.

    Raises:
        ConfigurationError: with one line for each mistake. A line names the setting, and the file or the variable
            that it came from. It never contains a value, which may be a secret.
    """
    variables = _variables()
    if path is None and not variables:
        raise ConfigurationError(
            "There are no settings: this folder has no relay.toml, and no RELAY_* variable is set. Name the file with "
            "--config, or begin with the complete one in README.md (Set it up in five minutes)."
        )
    mistakes = [
        f"{name}: unknown variable; settings are RELAY_SECTION__KEY, like RELAY_PUBLIC__URL"
        for upper, name in variables.items()
        if upper.removeprefix("RELAY_").lower().split("__")[0] not in Settings.model_fields
    ]

    class FromFile(Settings):
        file_contents = {} if path is None else _read_toml(path)

    try:
        settings = FromFile()  # the values come from the sources
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        inner = {item["loc"][:count] for item in found for count in range(len(item["loc"]))}
        # If the only item of a list is refused, the list is reported as too short as well: leave that out.
        mistakes += [_error_line(item, path, variables) for item in found if item["loc"] not in inner]
        if path is None and any(item["type"] == "missing" for item in found):
            mistakes.insert(
                0, "settings: only RELAY_* variables were read, because this folder has no relay.toml"
            )
    except (SettingsError, RecursionError) as error:
        mistakes.append(_not_json(str(error), variables))
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return _with_absolute_paths(settings, path.parent if path else Path())


_ENCODING = "utf-8-sig"
"""UTF-8, also with the byte order mark (BOM) that editors on Windows write."""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(_ENCODING))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: there is no such file; name the settings file with --config"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: can't be read: it is not UTF-8") from None
    # besides TOMLDecodeError: a number of 5000 digits is a ValueError, 1000 brackets are a RecursionError
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {_printable(error)}") from None


def _variables() -> dict[str, str]:
    """Return the RELAY_* variables: by the name in upper case, the name as it is. Case does not count."""
    names = {name.upper(): name for name in sorted(os.environ)}
    return {
        upper: name
        for upper, name in names.items()
        if upper.startswith("RELAY_") and upper not in OTHER_VARIABLES and not _OF_KUBERNETES.fullmatch(upper)
    }


def _not_json(error: str, variables: dict[str, str]) -> str:
    """Return which variable is not JSON. The library names the section only."""
    section = re.search(r'field "(\w+)"', error)
    prefix = f"RELAY_{section[1]}".upper() if section else "RELAY_"
    names = [
        name for upper, name in variables.items() if f"{upper}__".startswith(f"{prefix}__") or not section
    ]
    return (
        f"{' or '.join(names)}: can't be read as JSON; write a list as '[\"…\"]' and a section as '{{…}}', "
        "or set one key with RELAY_SECTION__KEY"
    )


def _error_line(item: Any, path: Path | None, variables: dict[str, str]) -> str:
    """Return the line for one of the library's errors."""
    parts = [_printable(part) for part in item["loc"]]
    message = _message(item)
    if parts and parts[-1] == "[key]":  # the library's mark for the name in [endpoints.NAME]
        parts.pop()
        message = f"the name {message}"
    # A variable may hold the setting itself, or as JSON the list or the section of the setting.
    names = ["__".join(["RELAY_" + parts[0], *parts[1:count]]).upper() for count in range(len(parts), 0, -1)]
    variable = next((variables[name] for name in names if name in variables), None)
    where = variable or (str(path) if path else "settings")
    return ": ".join(text for text in (where, ".".join(parts), message) if text)


_MESSAGES = {
    "extra_forbidden": "unknown key; the table in relay/settings/README.md lists all keys",
    "missing": "is missing",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a section with keys of its own",
    "model_type": "must be a section with keys of its own",
    "model_attributes_type": "must be a section with keys of its own",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "too_long": "must have at most {max_length} items; remove some",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path, written as a text",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""The library's kinds of errors, in the words of the settings."""


def _message(item: Any) -> str:
    """Return what is wrong and what to do, in the words of the settings."""
    kind, place = item["type"], item["loc"]
    if kind == "missing" and len(place) == 1:
        return f"is missing; write a section [{place[0]}], as README.md has one"
    if kind == "extra_forbidden" and (near := difflib.get_close_matches(str(place[-1]), _keys_beside(place))):
        return f"unknown key; did you mean {near[0]}?"
    if kind in _MESSAGES:
        # a text is written in double quotes in the file
        values = {
            name: f"{value:g}" if isinstance(value, float) else str(value).replace("'", '"')
            for name, value in item.get("ctx", {}).items()
        }
        return _MESSAGES[kind].format(**values)
    text: str = item["msg"]
    return text.removeprefix("Value error, ")


def _keys_beside(place: Sequence[Any]) -> set[str]:
    """Return the keys that exist where an unknown one was found."""
    models: set[type[BaseModel]] = {Settings}
    for part in place[:-1]:
        # a part that is no key is a name, as of an endpoint, or the library's mark for one of several forms
        kinds = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        models = {model for kind in kinds for model in _models(kind)} or models
    return {key for model in models for key in model.model_fields}


def _models(kind: Any) -> Iterable[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)


def _names(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "none"


def _printable(text: object) -> str:
    return str(text) if str(text).isprintable() else ascii(text)[1:-1]


def _with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    """Return the settings with absolute paths, so that the working folder of the process does not matter."""

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
            "engine": settings.engine.model_copy(
                update={
                    "state_path": at(settings.engine.state_path),
                    "password_file": settings.engine.password_file and at(settings.engine.password_file),
                }
            ),
            "audit": settings.audit.model_copy(
                update={"path": at(settings.audit.path), "keys_dir": at(settings.audit.keys_dir)}
            ),
        }
    )
