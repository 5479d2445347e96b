"""Where the engine is: the setting `engine.url`, read into what a connection needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from relay.core.errors import ConfigurationError

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_FORMS = (
    "redis://host:6379, rediss://host:6379, unix:///path/of/socket, redis+sentinel://host:26379,host:26379/name or "
    "redis+cluster://host:6379,host:6379"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The engine's place and the user to log in as.

    With a `service` the `hosts` are Sentinels, which know the master of that name. Of a cluster they are some of its
    servers, each of which knows all. With a `path` the engine listens on a Unix socket. `ca_file` is the certificate
    authority of a private TLS certificate, "" for the system's.
    """

    kind: Literal["tcp", "unix", "sentinel", "cluster"]
    hosts: Sequence[tuple[str, int]] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    tls: bool = False
    ca_file: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    follow_every_s: float = 1.0
    """Seconds between two questions to a Sentinel who the master is. After a failover that somebody asked for, the old
    master goes on for 10 s as if it were still one (measured, Redis 7.0)."""

    def __str__(self) -> str:
        if self.kind == "unix":
            return self.path
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{hosts} ({self.service})" if self.service else hosts


def read_address(url: str, *, password_file: Path | None = None) -> Address:
    """Return the address that a URL names. `password_file` has the password, if the URL has none.

    Raises:
        ConfigurationError: if the URL has another form, or the file can't be read.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        if parts.scheme not in _SCHEMES or parts.fragment or options.keys() - {"db", "ca_file"}:
            raise ValueError
        return _address(parts, options, _password(parts, password_file))
    except ValueError:
        # the URL itself may have a password, so it is not repeated
        raise ConfigurationError(
            f"engine.url is not the address of an engine. Use {_FORMS}, with ?db=1 for another database and "
            "?ca_file=/path for the certificate authority of a private TLS certificate."
        ) from None


def _address(parts: SplitResult, options: dict[str, str], password: str) -> Address:
    scheme, _, several = parts.scheme.partition("+")
    user = unquote(parts.username or "")
    kind: Literal["tcp", "sentinel", "cluster"] = "tcp"
    if several:
        kind = "sentinel" if several == "sentinel" else "cluster"
    path = unquote(parts.path).strip("/")
    database = int(options.get("db", path or "0" if scheme != "unix" and kind == "tcp" else "0"))
    if scheme == "unix":
        if parts.hostname or not path:
            raise ValueError
        return Address(kind="unix", path=unquote(parts.path), database=database, user=user, password=password)
    hosts = [
        _host(text, 26379 if kind == "sentinel" else 6379)
        for text in parts.netloc.rpartition("@")[2].split(",")
        if text
    ]
    if not hosts or (len(hosts) > 1 and kind == "tcp") or (kind == "sentinel") != bool(path and several):
        raise ValueError
    if kind == "cluster" and database:  # a cluster has no other
        raise ValueError
    return Address(
        kind=kind,
        hosts=hosts,
        service=path if several else "",
        database=database,
        tls=scheme == "rediss",
        ca_file=options.get("ca_file", ""),
        user=user,
        password=password,
    )


def _host(text: str, port: int) -> tuple[str, int]:
    one = urlsplit(f"//{text}")
    if not one.hostname:
        raise ValueError
    return one.hostname, one.port or port


def _password(parts: SplitResult, file: Path | None) -> str:
    if file is None:
        return unquote(parts.netloc.rpartition("@")[0].partition(":")[2])
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"engine.password_file: {file} can't be read ({error}). Set it to a file with the engine's password."
        ) from None
