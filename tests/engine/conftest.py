"""An engine that a test may break."""

from collections.abc import Iterator

import pytest

from tests.support.engines import EngineServer, engine_server


@pytest.fixture
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """A Redis of the test's own."""
    with engine_server("redis", tmp_path_factory.mktemp("own")) as server:
        yield server
