"""The other files of examples/deploy: settings that the doctor likes, and a README whose commands exist."""

import os
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.doctor import Deployment, examine
from relay.keys.files import create_signing_key
from relay.settings.load import load
from tests.support import readme
from tests.support.command_line import refusal
from tests.support.reverse_proxy import EXAMPLES, filled

README = readme.read(EXAMPLES / "README.md")
SECRETS = {
    'ref_key = "…"': 'ref_key = "9f1c7e0b62d84a35f0c9d1e7846b2a5dce03917f5a8846d1b27e60c3f8a94d15"',
    'secret = "…"': 'secret = "Zq8vR3nT1xW6yB0kJ5mD7hF2sL9cP4gU8eA3iO6t"',
    'secret_sha256 = ["…"]': f'secret_sha256 = ["{"0b" * 32}"]',
}


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's settings with secrets, and keys, in a folder of the test's own."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    create_signing_key(tmp_path / "keys")
    text = filled((EXAMPLES / "relay.toml").read_text(), SECRETS | {"/var/lib/relay": str(tmp_path)})
    path = tmp_path / "relay.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_the_doctor_finds_nothing(settings_file: Path) -> None:
    """An example that its own project calls unwise would be none."""
    deployment = Deployment(
        settings=load(settings_file),
        file=settings_file,
        now=settings_file.stat().st_mtime,
        open_files=65_536,
        filesystem_of=lambda _path: "ext4",
    )
    assert examine(deployment) == []


def test_the_settings_and_the_proxies_name_the_same_ports(settings_file: Path) -> None:
    """Who copies one file and not the others finds the relay."""
    listen = load(settings_file).listen
    for name in ("nginx.conf", "Caddyfile"):
        text = (EXAMPLES / name).read_text()
        assert listen.http in text
        assert listen.stream in text
        assert listen.internal not in text, "the internal listener is not for a proxy"


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
    assert len(found) == 5
    for arguments in found:
        assert arguments is not None
        assert refusal(arguments) is None, arguments


def test_links_lead_somewhere() -> None:
    """Each file that the README names is there."""
    targets = list(readme.links(README.prose))
    assert targets
    assert [target for target in targets if not (EXAMPLES / target).exists()] == []
