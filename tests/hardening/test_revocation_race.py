"""Revocation races: a log-out in the same moment as a connect leaves no socket open, whichever of them is first."""

import asyncio

from tests.support.hostile_wire import bearing, head, post, read_answer, upgrade
from tests.support.service import Relay

ROUNDS = 40
CLOSED = b"\x88\x11\x11\x95session_revoked"


async def connect_once(relay: Relay, token: str) -> bytes | None:
    """Connect; return all that came up to the close frame or the end, or None if it was refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[1])
    try:
        writer.write(head("GET", "/ws/prices", [*upgrade(relay), bearing(token)]))
        if (await read_answer(reader)).status != 101:
            return None
        got = b""
        async with asyncio.timeout(10):
            while not got.endswith(CLOSED) and (chunk := await reader.read(65_536)):
                got += chunk
        return got
    finally:
        writer.close()


async def test_no_socket_outlives_its_session(relay: Relay) -> None:
    """Forty log-outs, each while its session connects: refused, or closed with 4501, and never left open."""

    async def one_round() -> bytes | None:
        session = relay.session()
        cookie = [("Cookie", f"access-token={session}"), ("Origin", relay.url)]
        token = (await post(relay, "/auth/ws-token", cookie)).json["wsToken"]
        got, answer = await asyncio.gather(
            connect_once(relay, token), post(relay, "/api/auth/logout", cookie)
        )
        assert answer.status == 204
        return got

    outcomes = [await one_round() for _ in range(ROUNDS)]
    assert all(got is None or got.endswith(CLOSED) for got in outcomes), outcomes
