"""A proxy from examples/deploy in front of a relay, on free ports of loopback and in a folder of the test's own.

The example files are taken as they are; only names, addresses and paths are replaced, and what is to be replaced must
be there, so that a test fails when it would no longer test what the file says.
"""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.readme import ROOT
from tests.support.relay_process import Relay, make_relay

EXAMPLES = ROOT / "examples" / "deploy"
SECRETS = {
    'ref_key = "…"': 'ref_key = "9f1c7e0b62d84a35f0c9d1e7846b2a5dce03917f5a8846d1b27e60c3f8a94d15"',
    'secret = "…"': 'secret = "Zq8vR3nT1xW6yB0kJ5mD7hF2sL9cP4gU8eA3iO6t"',
    'secret_sha256 = ["…"]': f'secret_sha256 = ["{"0b" * 32}"]',
}
"""What a user writes in the place of each "…" of the example's settings."""
MIMIC = "127.0.0.7"
"""Where the tests' browser comes from; the proxy is 127.0.0.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A relay and the proxy in front of it. `url` is the application's, `logs` all that the proxy writes.

    `pages_port` is the port of the application's own server, on which nobody listens.
    """

    relay: Relay
    url: str
    stream_url: str
    folder: Path
    ca: ssl.SSLContext
    pages_port: int

    def logs(self) -> str:
        """Return all that the proxy has written."""
        files = sorted(self.folder.glob("*.log"))
        assert files
        return "\n".join(file.read_text() for file in files)


def needed(name: str) -> str:
    """Return where a program is; skip the test where it is not, unless this is CI."""
    found = shutil.which(
        name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    )  # Debian's place for nginx
    if found is None:
        assert os.environ.get("CI") != "true", f"{name} is missing; tests/run installs it"
        pytest.skip(f"{name} is not installed")
    return found


def filled(text: str, replacements: Mapping[str, str]) -> str:
    """Return `text` with all of these replaced; each must be there."""
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def relay_behind(folder: Path) -> tuple[Relay, tuple[int, int], int]:
    """Make a relay that believes a proxy on this machine; gives the proxy's two ports too, and one that nobody has."""
    http, stream, internal, first, second, nobody = free_ports(6)
    relay = make_relay(folder, ports=(http, stream, internal))
    relay.environment |= {
        "RELAY_PUBLIC__URL": f"https://127.0.0.1:{first}",
        "RELAY_PUBLIC__STREAM_URL": f"wss://127.0.0.1:{second}",
        "RELAY_PUBLIC__TRUSTED_PROXIES": '["127.0.0.1"]',
    }
    return relay, (first, second), nobody


@contextlib.contextmanager
def nginx(folder: Path, authority: Authority) -> Iterator[Front]:
    """Run a relay behind nginx with examples/deploy/nginx.conf."""
    program = needed("nginx")
    relay, (first, second), nobody = relay_behind(folder)
    pair = authority.issue("127.0.0.1")
    conf = filled(
        (EXAMPLES / "nginx.conf").read_text(),
        {
            "listen 443 ssl;": f"listen 127.0.0.1:{first} ssl;",
            "listen 443 ssl sndbuf=64k;": f"listen 127.0.0.1:{second} ssl sndbuf=64k;",
            "127.0.0.1:8000": f"127.0.0.1:{relay.ports[0]}",
            "127.0.0.1:8001": f"127.0.0.1:{relay.ports[1]}",
            "127.0.0.1:3000": f"127.0.0.1:{nobody}",
            "/etc/ssl/example.com.pem": str(pair.cert),
            "/etc/ssl/example.com.key": str(pair.key),
            "/var/log/nginx/": f"{folder}/",
        },
    )
    command = nginx_command(program, folder, conf)
    with proxying(command, folder, relay, (first, second), nobody) as front:
        yield front


def nginx_command(program: str, folder: Path, conf: str) -> list[str]:
    """Write a configuration that has `conf` in its http section; returns the command that runs nginx with it."""
    (folder / "relay.conf").write_text(conf)
    spaces = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""  # the test's folder is open to nobody else
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nevents {{}}\n"
        f"http {{\n{spaces}include {folder}/relay.conf;\n}}\n"
    )
    return [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]


@contextlib.contextmanager
def caddy(folder: Path, authority: Authority) -> Iterator[Front]:
    """Run a relay behind Caddy with examples/deploy/Caddyfile."""
    program = needed("caddy")
    relay, (first, second), nobody = relay_behind(folder)
    pair = authority.issue("127.0.0.1")
    tls = f"\tbind 127.0.0.1\n\ttls {pair.cert} {pair.key}\n"
    conf = filled(
        (EXAMPLES / "Caddyfile").read_text(),
        {
            "\n{\n": "\n{\n\tadmin off\n\tauto_https disable_redirects\n",
            "\napp.example.com {\n": f"\nhttps://127.0.0.1:{first} {{\n{tls}",
            "\nstream.example.com {\n": f"\nhttps://127.0.0.1:{second} {{\n{tls}",
            "127.0.0.1:8000": f"127.0.0.1:{relay.ports[0]}",
            "127.0.0.1:8001": f"127.0.0.1:{relay.ports[1]}",
            "127.0.0.1:3000": f"127.0.0.1:{nobody}",
            "/var/log/caddy/": f"{folder}/",
        },
    )
    (folder / "Caddyfile").write_text(conf)
    command = [program, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with proxying(command, folder, relay, (first, second), nobody) as front:
        yield front


@contextlib.contextmanager
def proxying(
    command: list[str], folder: Path, relay: Relay, ports: tuple[int, int], pages_port: int
) -> Iterator[Front]:
    """Run the relay and the proxy, and end both."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    relay.start()
    try:
        with (folder / "output.log").open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)
        try:
            for port in ports:
                wait_for(port, process, folder)
            yield Front(
                relay=relay,
                url=f"https://127.0.0.1:{ports[0]}",
                stream_url=f"wss://127.0.0.1:{ports[1]}",
                folder=folder,
                ca=ssl.create_default_context(cafile=folder / "authority.pem"),
                pages_port=pages_port,
            )
        finally:
            process.terminate()
            process.wait(15)
    finally:
        relay.stop()


def wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until something listens there, or the process is gone."""
    ends = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            said = json.dumps([file.read_text() for file in folder.glob("*.log")])
            assert process.poll() is None, said
            assert time.monotonic() < ends, said
            time.sleep(0.02)  # another program starts: there is nothing to await
