"""The relay process that all tests of a folder share. At the end it must still run, without a traceback in its log."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backends import demo_backend
from tests.support.relay_process import Relay, running


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with log-in against the demo's backend. It must run to the end, and never log a traceback."""
    folder = tmp_path_factory.mktemp("shared-relay")
    with demo_backend(folder) as backend, running(folder, bff=f'backend = "{backend}"') as shared:
        yield shared
        assert shared.process is not None
        assert shared.process.poll() is None
    assert_quiet(shared)


def assert_quiet(relay: Relay) -> None:
    """Check that the relay logged no traceback and no internal error."""
    log = Path(relay.log_path).read_text()
    assert "Traceback" not in log, log
    assert "internal_error" not in log, log
