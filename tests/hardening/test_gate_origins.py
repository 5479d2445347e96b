"""Cross-site hijacking: a page elsewhere opens no connection, with whatever token it got hold of."""

import pytest

from tests.support.raw_http import (
    OVER_EACH_TRANSPORT,
    Opening,
    bearing,
    fresh,
    is_unspent,
    knock,
    upgrade,
)
from tests.support.relay_process import Relay


def foreign(own: str) -> dict[str, list[str]]:
    """Values of Origin that are not the application's, by what is wrong with them."""
    return {
        "evil": ["https://evil.example"],
        "null": ["null"],
        "empty": [""],
        "suffix": [own + ".evil.example"],
        "digit": [own + "0"],
        "prefix": [own[:-1]],
        "sibling": [own.replace("127.0.0.1", "127.0.0.2")],
        "user part": [own.replace("://", "://evil@")],
        "scheme": [own.replace("http:", "https:")],
        "websocket scheme": [own.replace("http:", "ws:")],
        "no port": ["http://127.0.0.1"],
        "slash": [own + "/"],
        "path": [own + "/x"],
        "case": [own.replace("http", "HTTP")],
        "list": [own + ", https://evil.example"],
        "twice": [own, own],
        "own, then evil": [own, "https://evil.example"],
        "evil, then own": ["https://evil.example", own],
        "wildcard": ["*"],
        "bytes": ["http://\xff\xfe"],
    }


@OVER_EACH_TRANSPORT
@pytest.mark.parametrize("kind", foreign("http://127.0.0.1:1"))
async def test_a_foreign_origin_is_refused(relay: Relay, kind: str, opening: Opening) -> None:
    """403, the same body for all of them, and the token is not used up."""
    token = await fresh(relay)
    fields = [*opening.request(relay, origin=""), *(("Origin", value) for value in foreign(relay.url)[kind])]
    answer = await knock(relay, fields=[*fields, opening.bearing(token)])
    assert (answer.status, answer.code) == (403, "forbidden")
    assert answer.all("access-control-allow-origin") == []
    assert (await knock(relay, f"/ws/prices?token={token}", fields)).body == answer.body
    assert (await knock(relay, fields=fields)).body == answer.body, "without a token too: nothing is upgraded"
    assert await is_unspent(relay, token)


@OVER_EACH_TRANSPORT
async def test_a_browsers_token_needs_its_origin(relay: Relay, opening: Opening) -> None:
    """No Origin, with a token that a browser asked for: 403, and the token is not used up."""
    token = await fresh(relay)
    answer = await knock(relay, fields=[*opening.request(relay, origin=""), opening.bearing(token)])
    assert (answer.status, answer.code) == (403, "forbidden")
    await relay.audited("connect.denied", reason="origin_missing")
    assert await is_unspent(relay, token)


@OVER_EACH_TRANSPORT
async def test_a_servers_token_is_not_for_browsers(relay: Relay, opening: Opening) -> None:
    """A token that names no origin opens nothing for a page, not even the application's own."""
    token = opening.bearing(await relay.token(origin=""))
    answer = await knock(relay, fields=[*opening.request(relay), token])
    assert (answer.status, answer.code) == (403, "forbidden")
    answer = await knock(relay, fields=[*opening.request(relay, origin=""), token])
    assert answer.status == opening.status


async def test_no_other_header_stands_for_origin(relay: Relay) -> None:
    """Sec-WebSocket-Origin (of the drafts) and Referer prove nothing."""
    token = await fresh(relay)
    fields = [*upgrade(relay, origin=""), ("Sec-WebSocket-Origin", relay.url), ("Referer", relay.url + "/")]
    assert (await knock(relay, fields=[*fields, bearing(token)])).status == 403
    assert await is_unspent(relay, token)
