"""The relay that these tests share: one with operators."""

import hashlib
from collections.abc import Iterator

import pytest

from tests.support.hardened_relays import assert_quiet
from tests.support.operating import OPERATORS
from tests.support.service import Relay, running

EVERYTHING = "everything.secret"
"""The key of a publisher of all channels."""

_SECTION = f"""
[publishers.everything]
secret_sha256 = ["{hashlib.sha256(b"secret").hexdigest()}"]
channels = [">"]
"""


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """It must live to the end, and never log a traceback."""
    with running(tmp_path_factory.mktemp("ingest-relay"), extra=OPERATORS + _SECTION) as shared:
        yield shared
        assert shared.process is not None
        assert shared.process.poll() is None
    assert_quiet(shared)
