"""Whatever stands in a call's headers and path, the middleware answers it, and lets nobody through without a token."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.verify import ScopedTokenMiddleware
from tests.support.service_tokens import ISSUER, token, verifier

GOOD = token().encode()
VALUES = st.binary(max_size=60) | st.sampled_from(
    [b"Bearer", b"Bearer ", b"Bearer a.b.c", b"Bearer \xff", GOOD, b"Basic " + GOOD, b"null", ISSUER.encode()]
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"authorization", b"Authorization", b"origin", b"sec-fetch-site", b"cookie"]), VALUES
    ),
    max_size=5,
)


@given(HEADERS, st.text(max_size=20), st.sampled_from(["http", "websocket"]))
def test_any_headers_are_refused_without_an_error(
    headers: list[tuple[bytes, bytes]], path: str, kind: str
) -> None:
    """Refused with 401 or 403; nothing raises, and the application is not called."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(*_: Any) -> None:
        pytest.fail("the application was called")

    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(ScopedTokenMiddleware(app, verifier())(scope, receive, send))
    assert sent[0].get("status") in (401, 403) or sent[0]["code"] in (3000, 3003)
