"""The relay that these tests share: one with operators."""

from collections.abc import Iterator

import pytest

from tests.support.operators import OPERATORS
from tests.support.publisher_socket import ALL_CHANNELS_SECTION
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """It must live to the end, and never log a traceback."""
    with running(tmp_path_factory.mktemp("ingest-relay"), extra=OPERATORS + ALL_CHANNELS_SECTION) as shared:
        yield shared
        assert shared.process is not None
        assert shared.process.poll() is None
    assert_quiet(shared)
