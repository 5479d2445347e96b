"""What the demo writes before it starts anything."""

from pathlib import Path

from relay.demo.deployment import create_deployment, write_settings


def test_files_with_secrets_are_private(tmp_path: Path) -> None:
    """`relay doctor` calls settings an error that others can read, and the demo's are what people copy."""
    deployment = create_deployment(tmp_path, http=0, stream=0, internal=0)
    write_settings(deployment, backend="http://127.0.0.1:1")
    for file in (deployment.settings_file, deployment.secret_file):
        assert file.stat().st_mode & 0o077 == 0
        assert deployment.secret in file.read_text()
