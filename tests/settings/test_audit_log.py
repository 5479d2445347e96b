"""The place of the audit log, read without the other settings: what all settings say, or that only they can tell."""

import os
from pathlib import Path

import pytest

from relay.settings.audit_log import KEYS, SECTIONS, AuditLog, audit_log
from relay.settings.load import Settings
from relay.settings.sections import Audit


def test_it_knows_the_names_of_all_settings() -> None:
    """A name that it does not know is a mistake in the file, which is for `load` to explain."""
    assert set(Settings.model_fields) == SECTIONS
    assert set(Audit.model_fields) == KEYS


@pytest.mark.parametrize(
    ("text", "variables", "path", "memory_mb"),
    [
        ("", {}, "audit.jsonl", 512),
        ('[audit]\npath = "logs/a.jsonl"\nindex_memory_mb = 128\n[limits]\nany = 1', {}, "logs/a.jsonl", 128),
        ('[audit]\npath = "/logs/a.jsonl"', {"RELAY_AUDIT__INDEX_MEMORY_MB": "256"}, "/logs/a.jsonl", 256),
        ('audit.path = "b"', {"RELAY_AUDIT__PATH": "/c", "RELAY_AUDIT__FSYNC": "never"}, "/c", 512),
    ],
)
def test_plain_settings_are_read(
    tmp_path: Path, text: str, variables: dict[str, str], path: str, memory_mb: int
) -> None:
    """A path in the file is relative to it, and variables win."""
    file = tmp_path / "relay.toml"
    file.write_text(text)
    assert audit_log(file, variables) == AuditLog(path=tmp_path / path, memory_mb=memory_mb)


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("audit", {}),
        ("audit = 1", {}),
        ('[audti]\npath = "x"', {}),
        ('[audit]\npth = "x"', {}),
        ("[audit]\npath = 1", {}),
        ("[audit]\nindex_memory_mb = 1", {}),
        ("[audit]\nindex_memory_mb = true", {}),
        ("", {"RELAY_AUDIT": '{"path": "x"}'}),
        ("", {"relay_audit__path": "x"}),
        ("", {"RELAY_AUDIT__INDEX_MEMORY_MB": "much"}),
    ],
)
def test_everything_else_is_for_all_settings(tmp_path: Path, text: str, variables: dict[str, str]) -> None:
    """A mistake, or another way to write a variable, gets no answer here."""
    file = tmp_path / "relay.toml"
    file.write_text(text)
    assert audit_log(file, variables) is None


def test_it_agrees_with_all_settings_about_a_missing_file(tmp_path: Path) -> None:
    """A file that can't be read is no settings; no file at all are the default ones, in this folder."""
    assert audit_log(tmp_path / "relay.toml", {}) is None
    assert audit_log(None, {}) == AuditLog(path=Path.cwd() / "audit.jsonl", memory_mb=512)
    assert audit_log(Path(os.devnull), {}) == AuditLog(path=Path("/dev/audit.jsonl"), memory_mb=512)
