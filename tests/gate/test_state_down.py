"""A state store that does not answer: single use can't be proven, so no connection is accepted and no token lost."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator

from websockets.asyncio.client import connect

from tests.support.raw_http import OVER_EACH_TRANSPORT, Opening, is_unspent, knock, post
from tests.support.relay_process import Relay


@contextlib.contextmanager
def locked(relay: Relay) -> Iterator[None]:
    """Hold the state file's lock, as a backup tool or a second program might."""
    database = sqlite3.connect(relay.folder / "relay-state.db", isolation_level=None)
    try:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")
    finally:
        database.close()


@OVER_EACH_TRANSPORT
async def test_the_gate_says_503(relay: Relay, opening: Opening) -> None:
    """It has Retry-After, and the same token works later. A replay is refused during that time too."""
    used, token = await relay.token(), await relay.token()
    assert await is_unspent(relay, used)
    with locked(relay):
        for text in (token, used):
            answer = await knock(relay, fields=[*opening.request(relay), opening.bearing(text)])
            assert (answer.status, answer.code, answer.json["retryable"]) == (503, "unavailable", True)
            assert int(answer.all("retry-after")[0]) >= 1
    await relay.audited("connect.denied", reason="state_unavailable")
    assert await is_unspent(relay, token)
    assert not await is_unspent(relay, used)


async def test_the_first_message_gets_1013(relay: Relay) -> None:
    """A browser's script sees that it may try again."""
    token = await relay.token()
    with locked(relay):
        url = f"{relay.stream_url}/ws/prices"
        async with connect(url, additional_headers={"Origin": relay.url}, proxy=None) as websocket:
            await websocket.send(json.dumps({"type": "auth", "token": token}))
            await websocket.wait_closed()
            assert (websocket.close_code, websocket.close_reason) == (1013, "unavailable")
    assert await is_unspent(relay, token)


async def test_a_log_out_does_not_pretend(relay: Relay) -> None:
    """The cookies are cleared, and the answer says that connections could not be ended. The next try ends them."""
    session = relay.session()
    cookie = [("Cookie", f"access-token={session}"), ("Origin", relay.url)]
    async with relay.connect(await relay.token(session)) as socket:
        await socket.read("error")
        with locked(relay):
            answer = await post(relay, "/api/auth/logout", cookie)
        assert (answer.status, answer.code, answer.json["retryable"]) == (503, "unavailable", True)
        assert len(answer.all("set-cookie")) == 2
        assert (await post(relay, "/api/auth/logout", cookie)).status == 204
        assert (await socket.closed())[0] == 4501
