"""What a token is for, and when: the exact endpoint's URL, and its thirty seconds by a clock that stands still here.

The gate runs in this process, so that its clock can be stopped; over a real socket all the same. Its endpoint is
`wss://stream.example.com/ws/prices`: a default port that can be written out, and a name that has a case.
"""

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.support.jws_forgery import forge
from tests.support.stream_node import ORIGIN, STREAM_URL, Node, running_node

AUDIENCE = f"{STREAM_URL}/ws/prices"
NOW = int(time.time())


@pytest_asyncio.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A gate whose clock shows NOW."""
    async with running_node(tmp_path) as node:
        monkeypatch.setattr("relay.stream.gate.time", SimpleNamespace(time=lambda: float(NOW)))
        yield node


def token(node: Node, **changed: Any) -> str:
    """Return a token signed with the issuer's key, good but for what is changed."""
    claims = {
        "iss": ORIGIN,
        "aud": AUDIENCE,
        "sub": "user-1",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 30,
        "jti": secrets.token_urlsafe(16),
        "scope": "subscribe",
        "channels": ["prices.>"],
        "sid": "0" * 32,
        "origin": ORIGIN,
        "ver": 1,
    }
    header = {"typ": "scoped+jwt", "alg": "EdDSA", "kid": node.tickets.key.kid}
    return forge(header, claims | changed, node.tickets.key.key)


async def status(node: Node, text: str) -> int:
    """Return how the gate answers."""
    async with node.dial(token=text) as wire:
        return await wire.shake()


@pytest.mark.parametrize(
    "audience",
    [
        AUDIENCE + "/",
        AUDIENCE + "?",
        AUDIENCE + "?x=1",
        AUDIENCE + "#",
        AUDIENCE + ".evil.example",
        AUDIENCE + " ",
        AUDIENCE + "\x00",
        " " + AUDIENCE,
        AUDIENCE[:-1],
        STREAM_URL,
        STREAM_URL + "/",
        STREAM_URL + "/ws/*",
        STREAM_URL + "/ws/depth",
        STREAM_URL + "//ws/prices",
        STREAM_URL + "/ws/../ws/prices",
        STREAM_URL + "/ws/%70rices",
        STREAM_URL + "/WS/prices",
        STREAM_URL + "/ws/prices;x",
        AUDIENCE.replace("stream", "Stream"),
        AUDIENCE.replace("wss:", "WSS:"),
        AUDIENCE.replace("wss:", "ws:"),
        AUDIENCE.replace("wss:", "https:"),
        AUDIENCE.replace(".com", ".com:443"),
        AUDIENCE.replace(".com", ".com."),
        AUDIENCE.replace("//", "//user@"),
        AUDIENCE.replace("e", "\u0435", 1),
        AUDIENCE.replace("example", "evil"),
        f"{AUDIENCE},{AUDIENCE}",
        f"{AUDIENCE} {STREAM_URL}/ws/depth",
        "*",
        "prices",
        "/ws/prices",
    ],
)
async def test_an_audience_that_is_not_ours_to_the_letter(node: Node, audience: str) -> None:
    """403, and the token's id is not used up by the attempt."""
    jti = secrets.token_urlsafe(16)
    assert await status(node, token(node, aud=audience, jti=jti)) == 403
    assert await status(node, token(node, jti=jti)) == 101


@pytest.mark.parametrize(
    "audience",
    [[AUDIENCE], [AUDIENCE, "https://api.example.com"], [], {AUDIENCE: 1}, None, 1, True, ""],
    ids=repr,
)
async def test_an_audience_is_one_text(node: Node, audience: object) -> None:
    """Lists, which RFC 7519 §4.1.3 allows, are not taken: 401, and nothing is used up."""
    jti = secrets.token_urlsafe(16)
    assert await status(node, token(node, aud=audience, jti=jti)) == 401
    assert await status(node, token(node, jti=jti)) == 101


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (60, 401),
        (3, 401),
        (2, 101),
        (1, 101),
        (0, 101),
        (-1, 101),
        (-3, 101),
        (-31, 101),
        (-32, 401),
        (-33, 401),
        (-60, 401),
    ],
)
async def test_the_issuers_clock_may_be_two_seconds_off(node: Node, ahead: int, expected: int) -> None:
    """So many seconds ahead of ours (or ago): two are forgiven at the beginning, and less than two at the end."""
    issued = NOW + ahead
    assert await status(node, token(node, iat=issued, nbf=issued, exp=issued + 30)) == expected


@pytest.mark.parametrize(("nbf", "expected"), [(60, 401), (3, 401), (2, 101), (-60, 101)])
async def test_not_before_counts_by_itself(node: Node, nbf: int, expected: int) -> None:
    """A token that was made now and is for later is refused until then."""
    assert await status(node, token(node, nbf=NOW + nbf)) == expected


@pytest.mark.parametrize("life", [31, 60, 3600, 0, -1])
async def test_no_clock_makes_a_token_live_longer(node: Node, life: int) -> None:
    """Thirty seconds from iat to exp at most, wherever now lies between them."""
    for issued in (NOW, NOW - 15, NOW - 29):
        assert await status(node, token(node, iat=issued, nbf=issued, exp=issued + life)) == 401


async def test_a_used_token_stays_used_whatever_the_clock_says(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back by an hour or on by two seconds, the gate does not take it a second time."""
    text = token(node)
    assert await status(node, text) == 101
    for shown in (NOW, NOW + 1, NOW + 31, NOW - 2, NOW - 3600, NOW + 3600):
        monkeypatch.setattr("relay.stream.gate.time", SimpleNamespace(time=lambda shown=shown: float(shown)))
        assert await status(node, text) == 401
