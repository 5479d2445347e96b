"""Replay: a token opens one connection, whatever is done to it, to the relay, or to the clock's thirty seconds."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.event_streams import event_headers
from tests.support.raw_http import Answer, bearing, head, knock, read_answer, upgrade
from tests.support.relay_process import Relay, make_relay, running
from tests.support.shared_relay import assert_quiet


async def at_once(relay: Relay, request: bytes, count: int) -> list[Answer]:
    """Send a request so many times in the same moment: all but its last byte first, and then the last of each."""
    pairs = [await asyncio.open_connection("127.0.0.1", relay.ports[1]) for _ in range(count)]
    try:
        for _, writer in pairs:
            writer.write(request[:-1])
            await writer.drain()
        for _, writer in pairs:
            writer.write(request[-1:])
        async with asyncio.timeout(20):
            return await asyncio.gather(*(read_answer(reader) for reader, _ in pairs))
    finally:
        for _, writer in pairs:
            writer.close()


async def test_of_a_hundred_at_once_one_gets_in(relay: Relay) -> None:
    """100 handshakes with one token in the same moment: one 101, and 99 times the same 401.

    A relay on a busy machine sends some of them away with 503 before it looks at their token.
    """
    for fields, target in (
        ([bearing(await relay.token())], "/ws/prices"),
        ([], f"/ws/prices?token={await relay.token()}"),
    ):
        request = head("GET", target, [*upgrade(relay), *fields])
        answers = await at_once(relay, request, 100)
        answers = [answer for answer in answers if answer.status != 503]
        assert sorted(answer.status for answer in answers) == [101, *[401] * (len(answers) - 1)]
        assert len(answers) > 10
        assert len({answer.body for answer in answers if answer.status == 401}) == 1


async def test_of_a_hundred_in_all_ways_at_once_one_gets_in(relay: Relay) -> None:
    """The same when they come as subprotocol, in the query, as the first message and to refresh other connections."""
    token = await relay.token()

    async def refreshed() -> bool:
        async with relay.connect() as socket:
            await socket.read("error")
            await socket.send(type="refresh", token=token)
            return bool((await socket.next())["type"] == "refreshed")

    async def by_subprotocol() -> bool:
        return (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101

    async def by_query() -> bool:
        return (await knock(relay, f"/ws/prices?token={token}")).status == 101

    async def by_first_message() -> bool:
        return await first_message(relay, token) != 3000

    async def has_won(way: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await way()
        except InvalidStatus as refused:
            if refused.response.status_code != 503:  # a busy relay looks at no token
                raise
            return False

    ways = [by_subprotocol, by_query, by_first_message, refreshed]
    won = await asyncio.gather(*(has_won(ways[number % 4]) for number in range(100)))
    assert sum(won) == 1


async def test_the_three_ways_count_together(relay: Relay) -> None:
    """A token that came as a subprotocol is used up for the query and for the first message too."""
    token = await relay.token()
    async with relay.connect(token):
        assert (await knock(relay, f"/ws/prices?token={token}")).status == 401
        assert await first_message(relay, token) == 3000


async def first_message(relay: Relay, token: str, path: str = "/ws/prices") -> int | None:
    """Send a token as the first frame and return the close code, or None if it was good."""
    url = f"{relay.stream_url}{path}"
    async with connect(url, additional_headers={"Origin": relay.url}, proxy=None) as websocket:
        await websocket.send(json.dumps({"type": "auth", "token": token}))
        with contextlib.suppress(ConnectionClosed):
            await websocket.recv()  # welcome, if it was good
            return None
        return websocket.close_code


async def test_no_other_spelling_is_another_token(relay: Relay) -> None:
    """Padding, spaces, a changed last character and percent signs make no second token out of a used one."""
    token = await relay.token()
    assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    tail = last[last.index(token[-1]) ^ 1]  # the low bits of the last character are not part of the signature
    for spelling in (
        f"{token}=",
        f"{token}==",
        f"{token}%3D",
        f"%65{token[1:]}",
        token[:-1] + tail,
        f"+{token}",
    ):
        answer = await knock(relay, f"/ws/prices?token={spelling}")
        assert (answer.status, answer.code) == (401, "invalid_token"), spelling[-4:]
    for spelling in (f"{token}=", token[:-1] + tail, token.replace(".", ".=", 1)):
        answer = await knock(relay, fields=[*upgrade(relay), bearing(spelling)])
        assert answer.status in (400, 401), spelling[-4:]


async def test_padding_does_not_pay_for_a_fresh_token(relay: Relay) -> None:
    """A misspelt token is refused without using the right one up."""
    token = await relay.token()
    assert (await knock(relay, f"/ws/prices?token={token}=")).status == 401
    assert (await knock(relay, f"/ws/prices?token={token}")).status == 101


async def test_a_used_token_stays_used_after_kill_9(tmp_path: Path) -> None:
    """The claim outlives the process: 401 and `token_replayed` from the restarted relay."""
    with running(tmp_path) as relay:
        token, fresh = await relay.token(), await relay.token()
        assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101
        relay.kill()
        relay.start()
        answer = await knock(relay, fields=[*upgrade(relay), bearing(token)])
        assert (answer.status, answer.code) == (401, "invalid_token")
        record = await relay.audited("connect.denied", reason="token_replayed")
        assert record["relay"]["token"]["jti"]
        assert record["user"]["id"] == "user-1"
        assert (await knock(relay, fields=[*upgrade(relay), bearing(fresh)])).status == 101
    assert_quiet(relay)


async def test_what_looks_like_theft_survives_kill_9(tmp_path: Path) -> None:
    """When the thief has the answer, the record is in the file: each reason, over each transport that can have it."""
    relay, listed = make_relay(tmp_path), "https://listed.example"
    settings = relay.folder / "relay.toml"
    settings.write_text(
        settings.read_text().replace("[public]\n", f'[public]\nallowed_origins = ["{listed}"]\n')
    )
    relay.start()
    try:
        used, used_for_events, used_to_refresh, fresh, fresh_too = [await relay.token() for _ in range(5)]
        for token in (used, used_for_events, used_to_refresh):
            assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101
        for_events = event_headers(used_for_events, origin=relay.url)
        found = []
        for reason, path, fields in (
            ("token_replayed", "/ws/prices", [*upgrade(relay), bearing(used)]),
            ("token_replayed", "/ws/prices", for_events),
            ("token_audience", "/ws/trades", [*upgrade(relay), bearing(fresh)]),
            ("token_audience", "/ws/trades", event_headers(fresh_too, origin=relay.url)),
            (
                "origin_refused",
                "/ws/prices",
                [*upgrade(relay, origin="https://else.example"), bearing(fresh)],
            ),
            ("token_origin", "/ws/prices", [*upgrade(relay, origin=listed), bearing(fresh)]),
            ("origin_missing", "/ws/prices", [*upgrade(relay, origin=""), bearing(fresh)]),
            ("origin_refused", "/ws/prices", event_headers(fresh_too, origin="https://else.example")),
            ("token_origin", "/ws/prices", event_headers(fresh_too, origin=listed)),
            ("origin_missing", "/ws/prices", event_headers(fresh_too, origin="")),
        ):
            assert (await knock(relay, path, fields=fields)).status in (401, 403)
            found.append(reason)
            assert refusals(relay) == found
        by_first_message = await relay.token()
        assert await first_message(relay, by_first_message) is None
        assert await first_message(relay, by_first_message) == 3000
        found.append("token_replayed")
        assert refusals(relay) == found
        assert await first_message(relay, await relay.token(), "/ws/trades") == 3003
        found.append("token_audience")
        assert refusals(relay) == found
        async with relay.connect() as socket:
            await socket.read("error")  # it has asked for no channel
            for reason, code, token in (
                ("token_audience", "forbidden", await relay.token(endpoint="trades")),
                ("token_replayed", "invalid_token", used_to_refresh),
            ):
                await socket.send(type="refresh", id=1, token=token)
                assert (await socket.read("error"))["code"] == code
                found.append(reason)
                if reason == "token_replayed":
                    relay.kill()
                assert refusals(relay) == found
    finally:
        relay.kill()


def refusals(relay: Relay) -> list[str]:
    """Return the reasons of the refused connections whose records are in the file at this moment."""
    events = [record["event"] for record in relay.audit()]
    return [event["reason"] for event in events if event["action"] == "connect.denied"]
