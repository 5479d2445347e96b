"""The token as the first frame: the same checks, and close codes that a browser's script can read."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.forged_tokens import claims, signed
from tests.support.raw_http import post
from tests.support.relay_process import Relay


@contextlib.asynccontextmanager
async def bare(
    relay: Relay, *, path: str = "/ws/prices", origin: str | None = None
) -> AsyncIterator[ClientConnection]:
    """Connect without a token."""
    headers = {"Origin": relay.url if origin is None else origin} if origin != "" else {}
    async with connect(
        f"{relay.stream_url}{path}", additional_headers=headers, proxy=None, compression=None, max_size=None
    ) as websocket:
        yield websocket


def auth(token: object) -> str:
    """Return the first frame."""
    return json.dumps({"type": "auth", "token": token})


async def ending(websocket: ClientConnection) -> tuple[int | None, str | None]:
    """Wait for the close and return its code and text; no frame of data may come before it."""
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionClosed):
            raise AssertionError(f"a frame came: {await websocket.recv()!r}")
    return websocket.close_code, websocket.close_reason


async def test_a_good_token_gets_its_welcome(relay: Relay) -> None:
    """Nothing is sent before the token. Then all is as with the other transports, with channels from the URL."""
    async with bare(relay, path="/ws/prices?channels=prices.X") as websocket:
        await websocket.send(auth(await relay.token()))
        assert json.loads(await websocket.recv())["type"] == "welcome"
        ack = json.loads(await websocket.recv())
        assert [entry["channel"] for entry in ack["channels"]] == ["prices.X"]
    record = await relay.audited("connect.accepted")
    assert record["relay"]["token"]["transport"] in ("first_message", "subprotocol")


async def test_a_bad_token_is_3000(relay: Relay) -> None:
    """Garbage, expired, used and too long tokens and a revoked session get the same close code and text."""
    used = await relay.token()
    async with relay.connect(used):
        pass
    old = claims(relay)
    old |= {name: old[name] - 90 for name in ("iat", "nbf", "exp")}
    for token in (
        "",
        "garbage",
        used,
        "a" * 5000,
        relay.session(),
        signed(relay, old),
        f"{await relay.token()}=",
    ):
        async with bare(relay) as websocket:
            await websocket.send(auth(token))
            assert await ending(websocket) == (3000, "invalid_token"), token[:20]


async def test_a_token_for_something_else_is_3003(relay: Relay) -> None:
    """A token for another endpoint or origin, or a browser's without Origin, is not allowed and stays unused."""
    token = await relay.token(endpoint="depth")
    async with bare(relay) as websocket:
        await websocket.send(auth(token))
        assert await ending(websocket) == (3003, "forbidden")
    async with relay.connect(token, path="/ws/depth"):
        pass
    token = await relay.token()
    async with bare(relay, origin="") as websocket:
        await websocket.send(auth(token))
        assert await ending(websocket) == (3003, "forbidden")
    async with relay.connect(token):
        pass


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('{"type":"subscribe","channels":["prices.X"]}', 1008),
        ('{"type":"ping"}', 1008),
        ('{"type":"auth"}', 1008),
        ('{"type":"auth","token":null}', 1008),
        ('{"type":"auth","token":["a"]}', 1008),
        ('{"type":"AUTH","token":"a"}', 1008),
        ('{"type":"unknown"}', 1008),
        ("{}", 1008),
        ("[]", 1008),
        ("", 1008),
        ("garbage", 1008),
        ("[" * 10_000, 1008),
        ('{"type":"auth","token":"' + "a" * 17_000 + '"}', 1009),
        (b'{"type":"auth","token":"a"}', 1003),
        (b"", 1003),
    ],
)
async def test_another_first_frame_ends_it(relay: Relay, frame: str | bytes, code: int) -> None:
    """A frame that is not `auth` gets 1008, a binary one 1003, one that is too long 1009."""
    async with bare(relay) as websocket:
        await websocket.send(frame)
        assert (await ending(websocket))[0] == code


async def test_only_the_first_frame_is_a_token(relay: Relay) -> None:
    """`auth` on an accepted connection is a protocol error, and its token stays unused."""
    token = await relay.token()
    async with relay.connect() as socket:
        await socket.read("error")  # nothing_subscribed: the token names a pattern
        await socket.websocket.send(auth(token))
        assert (await socket.closed())[0] == 1008
    async with relay.connect(token):
        pass


async def test_two_tokens_at_once_use_one(relay: Relay) -> None:
    """Of two `auth` frames in one packet the first is used. The second ends the connection and stays unused."""
    first, second = await relay.token(), await relay.token()
    async with bare(relay) as websocket:
        await websocket.send(auth(first))
        await websocket.send(auth(second))
        async with asyncio.timeout(15):
            await websocket.wait_closed()
        assert websocket.close_code == 1008
    async with relay.connect(second):
        pass


async def test_a_client_that_leaves_first_is_no_error(relay: Relay) -> None:
    """A client that leaves before it sends a token leaves no connection and no error."""
    async with bare(relay):
        pass
    async with bare(relay) as websocket:
        websocket.transport.abort()
    async with relay.connect():
        pass


async def test_logged_out_before_the_token_came(relay: Relay) -> None:
    """A session that was revoked between the handshake and the first frame gets no welcome."""
    session = relay.session()
    token = await relay.token(session)
    async with bare(relay) as websocket:
        cookie = [("Cookie", f"access-token={session}"), ("Origin", relay.url)]
        assert (await post(relay, "/api/auth/logout", cookie)).status == 204
        await websocket.send(auth(token))
        assert (await ending(websocket))[0] in (3000, 4501)
