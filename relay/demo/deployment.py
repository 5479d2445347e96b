"""The demo's deployment: free ports, secrets, keys and the relay's settings, generated into one folder."""

import contextlib
import hashlib
import os
import random
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from relay.core.errors import ConfigurationError
from relay.settings.template import settings_text, write_folder

FREE_PORTS = range(10_100, 32_000)
"""Above the last port that browsers refuse (10080: Fetch §2.9), and below those that Linux gives to clients."""

HOSTS = ("127.0.0.1", "localhost")

_SECTIONS = """\
[operators.demo]
secret_sha256 = ["{operator}"]
may = ["read", "revoke"]

[bff]
backend = "{backend}"
refresh_cookie = "refresh-token"

[bff.proxy.routes."/account"]
methods = ["GET"]
strip = ["nationalId", "accounts.*.internalScore"]

[bff.proxy.routes."/received"]
methods = ["GET"]

[limits]
logins_per_account = "600/minute"
logins_per_account_and_address = "600/minute"

[log]
format = "text"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoDeployment:
    """A demo's folder and addresses. `origin` is that of a page elsewhere that may use the relay, or ""."""

    folder: Path
    host: str
    origin: str
    http: int
    stream: int
    internal: int
    secret: str = field(repr=False)
    publisher_secret: str = field(repr=False)
    operator_secret: str = field(repr=False)

    @property
    def url(self) -> str:
        """The page's address, and the relay's public one."""
        return f"http://{self.host}:{self.http}"

    @property
    def internal_url(self) -> str:
        """The relay's internal address, for publishers."""
        return f"http://{self.host}:{self.internal}"

    @property
    def publisher_key(self) -> str:
        """The market's publisher key."""
        return f"market.{self.publisher_secret}"

    @property
    def operator_key(self) -> str:
        """The operator key for the ops page."""
        return f"demo.{self.operator_secret}"

    @property
    def secret_file(self) -> Path:
        """The file with the secret that signs the backend's tokens."""
        return self.folder / "backend-secret"

    @property
    def settings_file(self) -> Path:
        """The relay's settings."""
        return self.folder / "relay.toml"

    @property
    def audit_file(self) -> Path:
        """The relay's audit log."""
        return self.folder / "audit.jsonl"

    @property
    def log_file(self) -> Path:
        """The log of the backend and the relay."""
        return self.folder / "demo.log"


def create_deployment(
    folder: Path, *, http: int, stream: int, internal: int, origin: str = ""
) -> DemoDeployment:
    """Choose ports (0 takes a free one) and generate secrets. The session secret is written into `folder`.

    All addresses have the host of `origin`: for a browser, localhost and 127.0.0.1 are two sites, and no page of one
    gets a cookie of the other.

    Raises:
        ConfigurationError: if a port is taken, or a page of `origin` could not reach the demo.
    """
    host = _host(origin)
    ports = _ports({"--port": http, "--stream-port": stream, "--internal-port": internal})
    deployment = DemoDeployment(
        folder=folder,
        host=host,
        origin=origin,
        http=ports[0],
        stream=ports[1],
        internal=ports[2],
        secret=secrets.token_hex(32),
        publisher_secret=secrets.token_urlsafe(32),
        operator_secret=secrets.token_urlsafe(32),
    )
    deployment.secret_file.touch(mode=0o600)
    deployment.secret_file.write_text(deployment.secret)
    return deployment


def write_settings(deployment: DemoDeployment, *, backend: str) -> None:
    """Write the relay's settings and its signing key; `backend` is the backend's origin."""
    origins = [f"http://{host}:{deployment.http}" for host in HOSTS if host != deployment.host]
    text = settings_text(
        session_secret=deployment.secret,
        ports=(deployment.http, deployment.stream, deployment.internal),
        public_url=deployment.url,
        stream_url=f"ws://{deployment.host}:{deployment.stream}",
        more_origins=[*origins, *filter(None, [deployment.origin])],
        grants={"trader": {"prices": ("prices.>",)}},
        publishers={"market": (_sha256(deployment.publisher_secret), ("prices.>",))},
        sections=_SECTIONS.format(operator=_sha256(deployment.operator_secret), backend=backend),
    )
    write_folder(deployment.folder, text)


def _host(origin: str) -> str:
    if not origin:
        return HOSTS[0]
    parts = urlsplit(origin)
    if parts.hostname not in HOSTS or origin != f"{parts.scheme}://{parts.netloc}":
        raise ConfigurationError(
            f"--origin {origin} can't reach the demo, which is on this machine only: name a page's origin on "
            "localhost or 127.0.0.1, like http://localhost:5173."
        )
    return parts.hostname


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _ports(wanted: dict[str, int]) -> list[int]:
    """Return free ports. They must be known before the relay starts, because tokens and origins contain them."""
    with contextlib.ExitStack() as stack:
        found = []
        for option, port in wanted.items():
            if port == 0:
                found.append(_free_port(stack))
                continue
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError as error:
                why = os.strerror(error.errno or 0)  # Python's own text repeats the address
                raise ConfigurationError(
                    f"Port {port} can't be used: {why}. Choose another with {option}; 0 takes a free port."
                ) from None
            found.append(port)
        return found


def _free_port(stack: contextlib.ExitStack) -> int:
    # the kernel's own choice is a port that it may give to any client before the relay has it
    for port in random.sample(FREE_PORTS, k=1000):
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return port
    raise ConfigurationError("There is no free port.")
