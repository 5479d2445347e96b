"""Fixtures and settings for the tests of the audit log."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.audit.jsonl import JsonlAuditor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def auditor(path: Path) -> AsyncIterator[JsonlAuditor]:
    """An auditor that writes to `path` and tries failed writes again at once."""
    auditor = JsonlAuditor.open(path, node="node-1", clock=lambda: 1_795_319_000.123, retry_s=0)
    yield auditor
    await auditor.aclose()
