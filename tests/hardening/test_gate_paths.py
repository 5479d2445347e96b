"""Path tricks: a path means exactly what it says, and what means nothing costs nobody a token."""

import pytest

from tests.support.raw_http import (
    OVER_EACH_TRANSPORT,
    Opening,
    bearing,
    exchange,
    fresh,
    head,
    is_unspent,
    knock,
    upgrade,
)
from tests.support.relay_process import Relay

SPELLINGS = [
    "/ws/prices/",
    "/ws/prices/.",
    "/ws/prices/../admin",
    "/ws/prices/../prices",
    "/ws/./prices",
    "/ws/x/../prices",
    "/ws//prices",
    "//ws/prices",
    "/ws/prices;x=1",
    "/ws/prices;",
    "/ws/%70rices",
    "/ws%2fprices",
    "/ws/%2e%2e/ws/prices",
    "/ws/prices%00",
    "/ws/prices%20",
    "/ws/prices%3f",
    "/ws/prices#x",
    "/ws/prices\\",
    "\\ws\\prices",
    "/WS/prices",
    "/ws/Prices",
    "/ws/prices.",
    "/ws/price",
    "/ws/pricess",
    "/ws",
    "/",
    "*",
    "ws/prices",
    "http://evil.example/ws/prices",
    "http://127.0.0.1/ws/prices",
    "ws://127.0.0.1/ws/prices",
    "/ws/nowhere",
    "/admin",
]


@OVER_EACH_TRANSPORT
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_other_spelling_is_the_endpoint(relay: Relay, spelling: str, opening: Opening) -> None:
    """404 with the body of every 404, and the token still works once."""
    token = await fresh(relay)
    answer = await knock(relay, spelling, [*opening.request(relay), opening.bearing(token)])
    assert (answer.status, answer.code) == (404, "not_found")
    if "#" not in spelling:  # what stands behind # belongs to no query
        assert (await knock(relay, f"{spelling}?token={token}")).status == 404
    assert await is_unspent(relay, token)


async def test_a_trailing_slash_is_another_path(relay: Relay) -> None:
    """Also over HTTP, where a redirect would name the host that the client named."""
    for port, path in ((relay.ports[0], "/auth/ws-token/"), (relay.ports[2], "/v1/stats/")):
        answer = await exchange(port, head("POST", path, [("Host", "127.0.0.1"), ("Content-Length", "0")]))
        assert (answer.status, answer.all("location")) == (404, [])


async def test_a_path_that_is_no_request_line_is_dropped(relay: Relay) -> None:
    """Spaces and bytes beyond ASCII in the path are no HTTP; the connection ends, the token is kept."""
    token = await fresh(relay)
    for target in ("/ws/prices /x", "/ws/pr\xefces", " /ws/prices", "/ws/prices\t"):
        assert (await knock(relay, target, [*upgrade(relay), bearing(token)])).status in (0, 400, 404)
    assert await is_unspent(relay, token)


@OVER_EACH_TRANSPORT
async def test_the_question_mark_ends_the_path(relay: Relay, opening: Opening) -> None:
    """An empty query, and one that holds slashes and question marks, leave the path what it is."""
    for query in ("?", "?a=/../admin", "?a=?b", "?a=http://evil.example/"):
        fields = [*opening.request(relay), opening.bearing(await fresh(relay))]
        answer = await knock(relay, f"/ws/prices{query}", fields)
        assert answer.status == opening.status, query
