"""A relay in front of a backend that the tests script. These tests share both."""

from collections.abc import Iterator

import pytest

from tests.support.proxied_backend import LIMITS, ROUTES, ProxiedBackend
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet


@pytest.fixture(scope="session")
def backend() -> ProxiedBackend:
    """The backend."""
    return ProxiedBackend()


@pytest.fixture(scope="session")
def relay(backend: ProxiedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """The relay, with few connections to the backend and short times."""
    folder = tmp_path_factory.mktemp("proxied")
    with running(
        folder, bff=f'backend = "{backend.origin}"\ntimeout_s = 3\n{ROUTES}', limits=LIMITS
    ) as relay:
        yield relay
    assert_quiet(relay)
