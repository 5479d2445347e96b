"""Revocation races: a log-out in the same moment as a connect leaves no socket open, whichever of them is first."""

import asyncio

from tests.support.raw_http import CLOSED, connect_once, post
from tests.support.relay_process import Relay

ROUNDS = 40


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
