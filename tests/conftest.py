"""Settings for all tests."""

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import settings

from tests.support import cleared_cookies, compression_ways
from tests.support.engines import Engines
from tests.support.long_files import LONGEST_FIRST

# a busy machine says nothing about a property, and a suite that every change waits for is kept short
settings.register_profile("relay", deadline=None, max_examples=60)
settings.load_profile("relay")

# a script that starts the suite in the background leaves Ctrl-C ignored, and the programs that the tests start
# and interrupt would inherit it (POSIX.1-2017, XCU §2.11)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# every answer that a test gets with httpx is checked against the rule about the refresh cookie
_send, _send_async = httpx.Client.send, httpx.AsyncClient.send


def _check(answer: httpx.Response) -> httpx.Response:
    url = answer.request.url
    cleared_cookies.check(url.port or 0, url.path, answer.status_code, answer.headers.get_list("set-cookie"))
    return answer


def _checked_send(client: httpx.Client, *arguments: Any, **options: Any) -> httpx.Response:
    return _check(_send(client, *arguments, **options))


async def _checked_send_async(client: httpx.AsyncClient, *arguments: Any, **options: Any) -> httpx.Response:
    return _check(await _send_async(client, *arguments, **options))


httpx.Client.send = _checked_send  # type: ignore[method-assign,assignment]  # watched, not replaced
httpx.AsyncClient.send = _checked_send_async  # type: ignore[method-assign,assignment]  # watched, not replaced


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the clients with and without compression."""
    if "compression" in metafunc.fixturenames:
        compression_ways.parametrize(metafunc)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no worker is still busy with one of them when the others are done.

    Then come those with the fewest tests: they start processes and browsers. Tables of quick tests are last.
    """
    counts = Counter(item.path for item in items)
    long = {name: place for place, name in enumerate(LONGEST_FIRST)}

    def place(item: pytest.Item) -> tuple[int, int]:
        return long.get(item.location[0], len(long)), counts[item.path]

    items.sort(key=place)


@pytest.fixture
def compression(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the clients of this test ask for compression, and the servers answer with it."""
    monkeypatch.setattr(compression_ways.way, "compressed", request.param)
    return bool(request.param)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Engines that no test may break."""
    shared = Engines(tmp_path_factory.mktemp("engines"))
    yield shared
    shared.close()
