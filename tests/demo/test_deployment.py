"""What the demo writes before it starts anything."""

from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.demo.deployment import create_deployment, write_settings
from relay.settings.load import load


def test_a_page_elsewhere_gets_addresses_of_its_own_site(tmp_path: Path) -> None:
    """With --origin http://localhost:5173 each address says localhost: cookies of 127.0.0.1 don't reach that page."""
    deployment = create_deployment(tmp_path, http=0, stream=0, internal=0, origin="http://localhost:5173")
    write_settings(deployment, backend="http://127.0.0.1:1")
    settings = load(deployment.settings_file)
    assert settings.public.url == deployment.url == f"http://localhost:{deployment.http}"
    assert settings.public.stream_url == f"ws://localhost:{deployment.stream}"
    assert deployment.internal_url.startswith("http://localhost:")
    assert {"http://localhost:5173", deployment.url} <= settings.allowed_origins
    assert settings.csrf.trusted_origins == ()


@pytest.mark.parametrize("origin", ["https://app.example.com", "http://localhost:5173/", "localhost:5173"])
def test_a_page_that_can_not_reach_the_demo_is_refused(tmp_path: Path, origin: str) -> None:
    """The demo listens on loopback only, and an origin has no path."""
    with pytest.raises(ConfigurationError, match="--origin"):
        create_deployment(tmp_path, http=0, stream=0, internal=0, origin=origin)


def test_files_with_secrets_are_private(tmp_path: Path) -> None:
    """`relay doctor` calls settings an error that others can read, and the demo's are what people copy."""
    deployment = create_deployment(tmp_path, http=0, stream=0, internal=0)
    write_settings(deployment, backend="http://127.0.0.1:1")
    for file in (deployment.settings_file, deployment.secret_file):
        assert file.stat().st_mode & 0o077 == 0
        assert deployment.secret in file.read_text()
