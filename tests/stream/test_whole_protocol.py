"""What goes beyond prices as fast as they come: streams, intervals, silence, refresh, a planned restart."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.support.raw_http import bearing, head, read_answer, upgrade
from tests.support.relay_process import PUBLISHER_KEY, Relay, Socket, running


async def trades(
    relay: Relay, first: int, last: int, channel: str = "trades.A", pad: int = 0
) -> dict[str, object]:
    """Publish numbered trades in one batch and return the last one's position."""
    trades = [{"n": n, "pad": "x" * pad} if pad else {"n": n} for n in range(first, last + 1)]
    lines = [json.dumps({"channel": channel, "data": trade}).encode() for trade in trades]
    answer = await relay.publish_raw(
        b"\n".join(lines),
        path="/v1/publish/batch",
        key=PUBLISHER_KEY,
        **{"Content-Type": "application/x-ndjson"},
    )
    results: list[dict[str, object]] = answer.json()["results"]
    return results[-1]


async def numbers(socket: Socket, count: int) -> list[int]:
    """Return the numbers of the next updates."""
    return [(await socket.read("update"))["data"]["n"] for _ in range(count)]


async def test_a_stream_is_resumed_without_a_gap_or_a_repeat(tmp_path: Path) -> None:
    """Messages that the client has missed are replayed before new ones. If they are too old it gets a snapshot."""
    with running(tmp_path) as relay:
        seen = await trades(relay, 1, 5)
        await trades(relay, 6, 9)
        token = await relay.token(endpoint="trades")
        async with relay.connect(token, path="/ws/trades") as socket:
            await socket.read("error")  # nothing subscribed: the token names a pattern
            since = {"trades.A": {"epoch": seen["epoch"], "seq": seen["seq"]}}
            await socket.send(type="subscribe", id=1, channels=["trades.A"], since=since, interval_ms=500)
            ack = (await socket.read("subscribed"))["channels"][0]
            assert (ack["mode"], ack["interval_ms"], ack["recovered"], ack["seq"]) == ("stream", 0, True, 9)
            assert await numbers(socket, 4) == [6, 7, 8, 9]
            await trades(relay, 10, 30)
            assert await numbers(socket, 21) == list(range(10, 31))
        token = await relay.token(endpoint="trades")
        async with relay.connect(token, path="/ws/trades") as socket:
            await socket.read("error")
            await socket.send(type="subscribe", channels=["trades.A"], since=since)
            ack = (await socket.read("subscribed"))["channels"][0]
            assert ack["recovered"] is False  # the history has ten
            assert (await socket.read("snapshot"))["data"] == {"n": 30}


async def test_a_resume_of_what_is_subscribed_already(tmp_path: Path) -> None:
    """`since` works for a channel that the token or a pattern has subscribed: it starts again, as the ack says."""
    with running(tmp_path) as relay:
        seen = await trades(relay, 1, 5)
        since = {"trades.A": {"epoch": seen["epoch"], "seq": 3}}
        for last, (channel, query) in enumerate(
            [("trades.A", ""), ("trades.*", "?channels=trades.*")], start=5
        ):
            token = await relay.token(endpoint="trades", channels=[channel])
            async with relay.connect(token, path="/ws/trades", query=query) as socket:
                await socket.read("subscribed")
                assert (await socket.read("snapshot"))["data"] == {"n": last}
                await socket.send(type="subscribe", id=1, channels=["trades.A"], since=since)
                assert (await socket.read("subscribed"))["channels"][0]["recovered"] is True
                assert await numbers(socket, last - 3) == list(range(4, last + 1))
                await socket.send(type="subscribe", id=2, channels=["trades.A"])
                assert (await socket.read("subscribed"))["channels"][0]["recovered"] is False
                await trades(relay, last + 1, last + 1)
                assert await numbers(socket, 1) == [last + 1], "and no snapshot for asking twice"


async def test_a_reader_too_slow_for_a_stream_is_told_so(tmp_path: Path) -> None:
    """It gets no gap: when a megabyte waits for it, its connection ends with 4008."""
    with running(tmp_path) as relay:
        token = await relay.token(endpoint="trades")
        async with relay.connect(token, path="/ws/trades", query="?channels=trades.B", max_queue=1) as socket:
            await socket.read("subscribed")
            socket.websocket.transport.pause_reading()
            for number in range(16):
                await trades(relay, 15 * number, 15 * number + 14, channel="trades.B", pad=60_000)
            record = await relay.audited("connection.closed")
            assert record["event"]["reason"] == "slow_consumer"
            assert record["relay"]["connection"]["close_code"] == 4008
            socket.websocket.transport.resume_reading()


async def test_an_interval_group_gets_the_newest_value_at_each_flush(tmp_path: Path) -> None:
    """Of many ticks in one interval only the newest comes. Another subscriber still gets every one."""
    with running(tmp_path) as relay:
        async with (
            relay.connect(query="?channels=prices.A&interval_ms=200") as calm,
            relay.connect(query="?channels=prices.A") as fast,
        ):
            assert (await calm.read("subscribed"))["channels"][0]["interval_ms"] == 250
            await fast.read("subscribed")
            for number in range(1, 41):
                await relay.publish("prices.A", number)
            assert [(await fast.next())["data"] for _ in range(40)] == list(range(1, 41))
            got = [(await calm.read("snapshot"))["data"]]
            while got[-1] != 40:
                got.append((await calm.read("update"))["data"])
            assert len(got) < 40
            assert got == sorted(got)


async def test_silence_is_told_and_so_is_its_end(tmp_path: Path) -> None:
    """A channel whose publisher is silent for longer than the endpoint's silence_ms is called stale, then live."""
    with running(tmp_path) as relay:
        await trades(relay, 1, 1)
        token = await relay.token(endpoint="trades")
        async with relay.connect(token, path="/ws/trades", query="?channels=trades.A") as socket:
            await socket.read("subscribed")
            await socket.read("snapshot")
            status = await socket.read("status")
            assert (status["channel"], status["state"]) == ("trades.A", "stale")
            await trades(relay, 2, 2)
            assert (await socket.read("update"))["data"] == {"n": 2}
            assert (await socket.read("status"))["state"] == "live"


async def test_a_connection_is_refreshed_by_its_own_user_only(tmp_path: Path) -> None:
    """A new token moves the end and is used up; a used one, another user's and another endpoint's change nothing."""
    with running(tmp_path) as relay:
        session = relay.session()
        async with relay.connect(await relay.token(session), query="?channels=prices.A") as socket:
            await socket.read("subscribed")
            fresh = await relay.token(session, channels=["prices.B"])
            await socket.send(type="refresh", id=7, token=fresh)
            assert await socket.read("unsubscribed") == {"type": "unsubscribed", "channels": ["prices.A"]}
            refreshed = await socket.read("refreshed")
            assert refreshed["id"] == 7
            assert refreshed["expires_at"] >= socket.welcome["expires_at"]
            strangers = await relay.token(relay.session(sub="user-2"))
            elsewhere = await relay.token(session, endpoint="depth")
            for token, code in (
                (fresh, "invalid_token"),
                (strangers, "invalid_token"),
                (elsewhere, "forbidden"),
                ("rubbish", "invalid_token"),
            ):
                await socket.send(type="refresh", id=8, token=token)
                error = await socket.read("error")
                assert (error["id"], error["code"]) == (8, code)
            async with relay.connect(strangers):
                pass  # it was not used up by somebody else
        record = await relay.audited("connection.refreshed")
        assert record["relay"]["token"]["transport"] == "refresh"


async def test_a_refreshed_connection_ends_with_either_session(tmp_path: Path) -> None:
    """A token of a newer log-in may refresh; logging out of that one ends the connection too."""
    with running(tmp_path, bff='backend = "http://127.0.0.1:9"') as relay:
        newer = relay.session()
        async with relay.connect(query="?channels=prices.A") as socket:
            await socket.read("subscribed")
            await socket.send(type="refresh", token=await relay.token(newer))
            await socket.read("refreshed")
            assert (await relay.logout(newer)).status_code == 204
            assert await socket.closed() == (4501, "session_revoked")


async def test_sigterm_closes_all_connections_with_a_delay_for_each(tmp_path: Path) -> None:
    """Each client gets a delay of its own and 1012. New connections get 503 until the relay has gone."""
    with running(tmp_path) as relay:
        async with relay.connect(query="?channels=prices.A") as one, relay.connect() as other:
            await one.read("subscribed")
            await other.read("error")
            assert relay.process is not None
            relay.process.send_signal(signal.SIGTERM)
            for socket in (one, other):
                assert 0 < (await socket.read("reconnect"))["delay_ms"] <= 6000
                assert await socket.closed() == (1012, "restart")
            assert await asyncio.to_thread(relay.process.wait, 10) == 0


@pytest.mark.parametrize(("over", "code"), [("replace", 4504), ("refuse", 4503)])
async def test_one_connection_too_many(tmp_path: Path, over: str, code: int) -> None:
    """The oldest connection is replaced, or the new one is refused, as the settings say."""
    with running(tmp_path, limits=f'connections_per_session = 1\nover = "{over}"') as relay:
        session = relay.session()
        async with relay.connect(await relay.token(session), query="?channels=prices.A") as first:
            await first.read("subscribed")
            if over == "replace":
                async with relay.connect(await relay.token(session)):
                    assert await first.closed() == (code, "replaced")
            else:
                with pytest.raises(ConnectionClosedError) as refused:
                    async with relay.connect(await relay.token(session)):
                        raise AssertionError("it was let in")
                assert (refused.value.rcvd and refused.value.rcvd.code) == code
                await first.send(type="ping", id=1)
                await first.read("pong")


def is_end_of(record: dict[str, Any], ids: set[str]) -> bool:
    """Tell whether a record is about the end of one of these connections."""
    return record["event"]["action"] == "connection.closed" and record["relay"]["connection"]["id"] in ids


async def test_a_refused_token_keeps_no_place(tmp_path: Path) -> None:
    """A connection whose used token was refused takes no place from its session, however long it stays."""
    with running(tmp_path, limits='connections_per_session = 1\nover = "refuse"') as relay:
        session = relay.session()
        used, fresh = await relay.token(session), await relay.token(session)
        async with relay.connect(used):
            pass
        await relay.audited("connection.closed")
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[1])
        writer.write(head("GET", "/ws/prices", [*upgrade(relay), bearing(used)]))
        assert (await read_answer(reader)).status == 401
        async with relay.connect(fresh):
            writer.close()


async def test_a_connection_without_a_place_keeps_its_token(tmp_path: Path) -> None:
    """Of twelve at once two are accepted and ten get 4503. Their tokens work as soon as there is a place."""
    with running(tmp_path, limits='connections_per_session = 2\nover = "refuse"') as relay:
        session = relay.session()
        tokens = [await relay.token(session) for _ in range(12)]
        letting_in: dict[str, Socket] = {}
        codes: list[int | None] = []

        async def enter(token: str, stack: contextlib.AsyncExitStack) -> None:
            try:
                letting_in[token] = await stack.enter_async_context(relay.connect(token))
            except ConnectionClosedError as refused:
                codes.append(refused.rcvd.code if refused.rcvd else None)

        async with contextlib.AsyncExitStack() as stack:
            await asyncio.gather(*(enter(token, stack) for token in tokens))
            assert (len(letting_in), codes) == (2, [4503] * 10)
            left = [token for token in tokens if token not in letting_in]
            # a refresh takes no place of its own, and one into a full session is refused without a loss
            socket = next(iter(letting_in.values()))
            await socket.read("error")
            await socket.send(type="refresh", id=1, token=left.pop())
            assert (await socket.read("refreshed"))["id"] == 1
            other = await relay.token(relay.session())
            async with relay.connect(other) as stranger:
                await stranger.read("error")
                await stranger.send(type="refresh", id=2, token=left[0])
                assert (await stranger.read("error"))["code"] == "connection_limit"
        await relay.audited("connect.denied", reason="connection_limit")
        ids = {socket.welcome["connection"] for socket in letting_in.values()}
        while ids:
            over = await relay.recorded(lambda one: is_end_of(one, ids))
            ids.remove(over["relay"]["connection"]["id"])
        async with relay.connect(left[0]), relay.connect(left[1]):
            pass
