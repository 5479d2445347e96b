"""What the demo makes up before it starts: free ports, secrets, keys and the relay's settings, in one folder."""

import contextlib
import hashlib
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from relay.core.errors import ConfigurationError
from relay.keys.files import create_signing_key

_SETTINGS = """\
[public]
url = "http://127.0.0.1:{http}"
stream_url = "ws://127.0.0.1:{stream}"
allowed_origins = ["http://127.0.0.1:{http}", "http://localhost:{http}"]

[listen]
http = "127.0.0.1:{http}"
stream = "127.0.0.1:{stream}"
internal = "127.0.0.1:{internal}"

[session]
cookie = "access-token"        # __Host-access-token behind https
ref_key = "{ref_key}"
signed = {{ algorithm = "HS256", secret = "{secret}", require = {{ token_use = "access" }} }}

[endpoints.prices]
path = "/ws/prices"
channels = ["prices.>"]

[grants]
trader.prices = ["prices.>"]

[publishers.market]
secret_sha256 = ["{publisher}"]
channels = ["prices.>"]

[operators.demo]
secret_sha256 = ["{operator}"]
may = ["read", "revoke"]

[csrf]
trusted_origins = ["http://localhost:{http}"]

[bff]
backend = "{backend}"
refresh_cookie = "refresh-token"

[limits]
logins_per_account = "600/minute"
logins_per_account_and_address = "600/minute"

[log]
format = "text"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A demo's folder and addresses."""

    folder: Path
    http: int
    stream: int
    internal: int
    secret: str = field(repr=False)
    publisher_secret: str = field(repr=False)
    operator_secret: str = field(repr=False)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.http}"

    @property
    def internal_url(self) -> str:
        """Where to publish."""
        return f"http://127.0.0.1:{self.internal}"

    @property
    def publisher_key(self) -> str:
        """The market's key."""
        return f"market.{self.publisher_secret}"

    @property
    def operator_key(self) -> str:
        """What opens the ops page."""
        return f"demo.{self.operator_secret}"

    @property
    def secret_file(self) -> Path:
        """What the backend signs its tokens with."""
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
        """What the processes say about themselves."""
        return self.folder / "demo.log"


def set_scene(folder: Path, *, http: int, stream: int, internal: int) -> Scene:
    """Choose ports (0: a free one) and make secrets and keys in `folder`, which must be private.

    Raises:
        ConfigurationError: if a port is taken.
    """
    ports = _ports({"--port": http, "--stream-port": stream, "--internal-port": internal})
    scene = Scene(
        folder=folder,
        http=ports[0],
        stream=ports[1],
        internal=ports[2],
        secret=secrets.token_hex(32),
        publisher_secret=secrets.token_urlsafe(32),
        operator_secret=secrets.token_urlsafe(32),
    )
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    create_signing_key(keys)
    _write_private(scene.secret_file, scene.secret)
    return scene


def write_settings(scene: Scene, *, backend: str) -> None:
    """Write the relay's settings; `backend` is the backend's origin."""
    _write_private(
        scene.settings_file,
        _SETTINGS.format(
            http=scene.http,
            stream=scene.stream,
            internal=scene.internal,
            ref_key=secrets.token_hex(32),
            secret=scene.secret,
            publisher=hashlib.sha256(scene.publisher_secret.encode()).hexdigest(),
            operator=hashlib.sha256(scene.operator_secret.encode()).hexdigest(),
            backend=backend,
        ),
    )


def _write_private(path: Path, text: str) -> None:
    """Write a file with secrets as `relay doctor` wants them, for whoever copies it out of this folder."""
    path.touch(mode=0o600)
    path.write_text(text)


def _ports(wanted: dict[str, int]) -> list[int]:
    """Return the ports, each free a moment ago. They must be known now: tokens and origins name them."""
    with contextlib.ExitStack() as stack:
        found = []
        for option, port in wanted.items():
            try:
                sock = stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError as error:
                raise ConfigurationError(
                    f"Port {port} can't be used: {error.strerror}. Choose another with {option}; 0 takes a free one."
                ) from None
            found.append(sock.getsockname()[1])
        return found
