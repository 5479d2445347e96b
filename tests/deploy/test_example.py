"""The other files of examples/deploy: settings that the doctor likes, and a README whose commands exist."""

import os
import re
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.doctor import Deployment, Finding, examine
from relay.keys.files import create_signing_key
from relay.settings.load import load
from tests.support import readme
from tests.support.command_line import refusal
from tests.support.reverse_proxy import EXAMPLES, SECRETS, filled

README = readme.read(EXAMPLES / "README.md")


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's settings with secrets, and keys, in a folder of the test's own."""
    return written(tmp_path, monkeypatch, (EXAMPLES / "relay.toml").read_text())


def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str) -> Path:
    """Write settings with secrets in the place of each "…", and a signing key."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    create_signing_key(tmp_path / "keys")
    text = filled(settings, SECRETS).replace("/var/lib/relay", str(tmp_path))
    path = tmp_path / "relay.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_the_doctor_finds_nothing(settings_file: Path) -> None:
    """An example that its own project calls unwise would be none."""
    assert findings(settings_file) == []


def test_the_doctor_finds_nothing_in_the_readmes_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first settings that a user sees, as pasted and with secrets."""
    (block,) = [block for block in readme.read().blocks if block.language == "toml"]
    assert findings(written(tmp_path, monkeypatch, block.text)) == []


def findings(settings_file: Path) -> list[Finding]:
    """Return what the doctor finds, on a machine that is as it should be."""
    deployment = Deployment(
        settings=load(settings_file),
        file=settings_file,
        now=settings_file.stat().st_mtime,
        open_files=65_536,
        filesystem_of=lambda _path: "ext4",
    )
    return examine(deployment)


def test_the_settings_and_the_proxies_name_the_same_ports(settings_file: Path) -> None:
    """Who copies one file and not the others finds the relay."""
    listen = load(settings_file).listen
    for name in ("nginx.conf", "Caddyfile"):
        text = (EXAMPLES / name).read_text()
        assert listen.http in text
        assert listen.stream in text
        assert listen.internal not in text, "the internal listener is not for a proxy"


def test_the_proxies_close_idle_connections_before_the_relay(settings_file: Path) -> None:
    """The relay must not close a connection at the moment of a proxy's next request, which would be 502."""
    keepalive_s = load(settings_file).listen.keepalive_s
    for name, setting in (("nginx.conf", "keepalive_timeout"), ("Caddyfile", "keepalive")):
        found = re.findall(rf"^\s*{setting} (\d+)s;?(?:\s|$)", (EXAMPLES / name).read_text(), re.MULTILINE)
        assert found, name
        assert all(int(seconds) < keepalive_s for seconds in found), name


def test_placeholders_do_not_start(tmp_path: Path) -> None:
    """Settings with their placeholders left in are refused, not run with an ellipsis for a key."""
    path = tmp_path / "relay.toml"
    path.write_text((EXAMPLES / "relay.toml").read_text())
    with pytest.raises(ConfigurationError, match=r"session\.ref_key"):
        load(path)


def test_each_relay_command_of_the_readme_exists() -> None:
    """Each `relay` command of the README is one."""
    found = [
        readme.relay_arguments(command)
        for block in README.blocks
        if block.language == "bash"
        for command in readme.commands(block.text)
    ]
    known = [arguments for arguments in found if arguments is not None]
    assert [arguments[0] for arguments in known] == ["keys", "keys", "config", "doctor", "token", "listen"]
    for arguments in known:
        assert refusal(arguments) is None, arguments


def test_links_lead_somewhere() -> None:
    """Each file that the README names is there."""
    targets = list(readme.links(README.prose))
    assert targets
    assert [target for target in targets if not (EXAMPLES / target.partition("#")[0]).exists()] == []
