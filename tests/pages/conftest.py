"""Page servers in this process: their connections are closed after each test."""

from collections.abc import AsyncIterator

import pytest

from tests.support.page_visitor import opened


@pytest.fixture(autouse=True)
async def _connections_are_closed() -> AsyncIterator[None]:
    yield
    while opened:
        await opened.pop().aclose()
