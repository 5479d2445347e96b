"""A deployment without any finding of `relay doctor`; tests change one thing and examine it again."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.doctor import Deployment, examine
from relay.doctor.base import ClockReading
from relay.keys.files import create_signing_key
from relay.settings.load import load
from tests.support.certificates import Authority

GOOD = """
[public]
url = "https://app.example.com"
stream_url = "wss://stream.example.com"
allowed_origins = ["https://app.example.com", "https://desk.example.com"]

[listen]
http = "0.0.0.0:8000"
stream = "0.0.0.0:8001"
tls = { cert = "server.pem", key = "server.key" }

[session]
ref_key = "9f1c7e0b62d84a35f0c9d1e7846b2a5dce03917f5a8846d1b27e60c3f8a94d15"
verifier = ["signed", "upstream"]
signed = { algorithm = "HS256", secret = "Zq8vR3nT1xW6yB0kJ5mD7hF2sL9cP4gU8eA3iO6t", require = { use = "access" } }
upstream = { me = "http://127.0.0.1:9000/auth/me", cache_s = 1.0 }

[tokens]
transports = ["subprotocol", "first_message"]

[endpoints.prices]
path = "/ws/prices"
channels = ["prices.>"]

[grants]
trader.prices = ["prices.>"]

[publishers.pricing]
secret_sha256 = ["b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"]
channels = ["prices.>"]

[bff]
backend = "http://127.0.0.1:9000"
"""


Examine = Callable[..., dict[str, list[str]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings, keys, certificate, log and state, as they should be."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    tmp_path.chmod(0o700)
    (tmp_path / "relay.toml").write_text(GOOD)
    (tmp_path / "relay.toml").chmod(0o600)
    create_signing_key(tmp_path / "keys")
    Authority(tmp_path).issue("app.example.com", "*.example.com")
    for name in ("audit.jsonl", "relay-state.db"):
        (tmp_path / name).touch(0o600)
    return tmp_path


def change(folder: Path, *changes: tuple[str, str]) -> None:
    """Change the settings file; each text must be there."""
    text = (folder / "relay.toml").read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "relay.toml").write_text(text)


@pytest.fixture
def examined(folder: Path) -> Examine:
    """Examine the folder's deployment; gives what was found by the checks' names.

    Keywords replace what is known of the machine: this one's own file systems and limits are not the tests' business.
    """

    def run(**facts: Any) -> dict[str, list[str]]:
        file = folder / "relay.toml"
        deployment = Deployment(
            settings=load(file),
            file=file,
            now=time.time(),
            open_files=65_536,
            filesystem_of=lambda _path: "ext4",
            clocks=(ClockReading(setting="bff.backend", host="127.0.0.1", ahead_s=0.0),),
        )
        found: dict[str, list[str]] = {}
        for finding in examine(replace(deployment, **facts)):
            found.setdefault(finding.check.name, []).append(finding.found)
        return found

    return run
