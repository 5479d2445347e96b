"""Two relays that share a state file, in front of a backend that punishes the reuse of a refresh token."""

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.cookie_browser import Browser
from tests.support.operators import OPERATORS
from tests.support.ports import free_ports
from tests.support.relay_process import Relay, make_relay
from tests.support.rotating_backend import RotatingBackend, rotating_backend

_numbers = itertools.count()


@pytest.fixture(scope="session")
def port() -> int:
    """The backend's port, which the relays know from their settings."""
    [one] = free_ports(1)
    return one


@pytest.fixture
async def backend(port: int) -> AsyncIterator[RotatingBackend]:
    """A backend that rotates."""
    async with rotating_backend(port) as running:
        yield running


@pytest.fixture(scope="session")
def relays(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[tuple[Relay, Relay]]:
    """Two relays with one state file."""
    folder = tmp_path_factory.mktemp("refreshing")
    bff = f'backend = "http://127.0.0.1:{port}"\ntimeout_s = 20\nlogout_path = "/auth/logout"'
    bff += '\n[bff.proxy.routes."/users"]\nmethods = ["GET", "POST"]'
    one, other = (make_relay(folder / name, bff=bff, extra=OPERATORS) for name in ("one", "other"))
    for relay in (one, other):
        relay.environment["RELAY_ENGINE__STATE_PATH"] = str(folder / "state.db")
        relay.start()
    yield one, other
    one.stop()
    other.stop()


@pytest.fixture
async def browser(relays: tuple[Relay, Relay], backend: RotatingBackend) -> Browser:
    """A browser of a user of its own, logged in at the first relay, whose access token is over."""
    logged_in = Browser(relays[0])
    await logged_in.login(f"user-{next(_numbers)}")
    assert set(backend.logins) == {logged_in.user}
    logged_in.lose_access()
    return logged_in
