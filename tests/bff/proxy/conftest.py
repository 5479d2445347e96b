"""A relay in front of a backend that the tests script. These tests share both."""

from collections.abc import Iterator

import pytest

from tests.support.proxied_backend import ProxiedBackend
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet

ROUTES = """
[bff.proxy]
request_headers = ["x-tenant"]
response_headers = ["x-total"]
request_cookies = ["theme"]
response_cookies = ["theme"]
connections = 4
calls_per_session = 3
max_body_bytes = 4000000
inspect_bytes = 65536
filter_bytes = 65536
answer_s = 2
idle_s = 2
[bff.proxy.routes."/users"]
[bff.proxy.routes."/users/admin"]
strip = ["ssn", "users.*.score"]
[bff.proxy.routes."/orders"]
methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
"""
LIMITS = """
proxy_per_session = "100000/minute"
proxy_per_address = "100000/minute"
"""


@pytest.fixture(scope="session")
def backend() -> ProxiedBackend:
    """The backend."""
    return ProxiedBackend()


@pytest.fixture(scope="session")
def relay(backend: ProxiedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """The relay, with few connections to the backend and short times."""
    folder = tmp_path_factory.mktemp("proxied")
    with running(folder, bff=f'backend = "{backend.origin}"\n{ROUTES}', limits=LIMITS) as relay:
        yield relay
    assert_quiet(relay)
