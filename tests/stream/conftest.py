"""The relay of most stream tests, and the event loop that the relay runs on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from tests.support.relay_process import Relay, running
from tests.support.stream_node import Node, running_node


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on uvloop as the relay does. Its transports differ, for example in a write after the end."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay process. After all tests its log must be free of tracebacks."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay
    log = relay.log_path.read_text()
    assert "Traceback" not in log, log


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """The stream side of a relay in this process."""
    async with running_node(tmp_path) as node:
        yield node
