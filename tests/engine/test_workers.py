"""`relay serve --workers 2` as its users run it: a supervisor, two workers, and one Redis."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from tests.support.engines import engine_server, until
from tests.support.operators import OPERATORS, READER
from tests.support.relay_process import Relay, make_relay
from tests.support.restarts import made_up, replace_workers, watch, workers_of

WITHIN_S = 60


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of two workers, whose trades have a long history."""
    with engine_server("redis", tmp_path_factory.mktemp("redis")) as engine:
        bff = 'backend = "http://127.0.0.1:9"\n[bff.fields]\nrefresh_token = ""'
        extra = f'{OPERATORS}\n[engine]\nurl = "{engine.url}"'
        folder = tmp_path_factory.mktemp("relay")
        relay = make_relay(folder, bff=bff, extra=extra, limits="drain_s = 2.0", history=1000)
        relay.arguments = ("--workers", "2")
        relay.start()
        try:
            yield relay
        finally:
            relay.stop()


def recorded(relay: Relay, action: str) -> dict[int, list[str]]:
    """Return the tokens of an action's records, by the number of the process that wrote them."""
    found: dict[int, list[str]] = {}
    for path in relay.folder.glob("audit.*.jsonl"):
        whole = path.read_bytes().rpartition(b"\n")[0]
        records = [json.loads(line) for line in whole.splitlines()]
        found[int(path.suffixes[0][1:])] = [
            record["relay"]["token"]["jti"] for record in records if record["event"]["action"] == action
        ]
    return found


@contextlib.asynccontextmanager
async def connected(relay: Relay, given: str = "", **options: Any) -> AsyncIterator[str]:
    """Connect with this token or new ones, again while the engine has just begun or the machine is busy.

    Return the token.
    """
    async with contextlib.AsyncExitStack() as stack:
        while True:
            token = given or await relay.token()
            try:
                await stack.enter_async_context(relay.connect(token, **options))
                break
            except InvalidStatus as error:
                if error.response.status_code != 503:
                    raise
        yield token


async def test_a_token_that_was_used_at_one_worker_is_refused_by_the_other(relay: Relay) -> None:
    """The claims are in the engine; each worker records in a chain of its own."""
    async with asyncio.timeout(WITHIN_S), connected(relay) as token:
        accepted: set[int] = set()
        denied: set[int] = set()
        while not denied - accepted:
            for _ in range(4):
                with pytest.raises(InvalidStatus) as refused:
                    async with relay.connect(token):
                        pass
                assert refused.value.response.status_code == 401
            accepted = {number for number, tokens in recorded(relay, "connect.accepted").items() if tokens}
            denied = {number for number, tokens in recorded(relay, "connect.denied").items() if tokens}
            if len(accepted) > 1:  # the engine refused the first token
                break


async def test_a_killed_worker_comes_back_and_the_other_one_serves(relay: Relay) -> None:
    """Its own connections are gone; those of the other stay, and no attempt to connect is cut in between."""
    async with asyncio.timeout(WITHIN_S), contextlib.AsyncExitStack() as stack:
        before = workers_of(relay)
        await relay.admits()
        tokens = [await relay.token() for _ in range(18)]
        sockets = [await stack.enter_async_context(relay.connect(token)) for token in tokens[:12]]
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        for token in tokens[12:]:  # connections of the killed worker's slot wait in its accept queue
            await stack.enter_async_context(connected(relay, token, open_timeout=WITHIN_S))
        await until(lambda: len(workers_of(relay)) == 2, within_s=WITHIN_S)
        assert killed not in workers_of(relay)
        alive = [socket for socket in sockets if socket.websocket.close_code is None]
        assert (await relay.publish("prices.A", 1)).status_code == 200
        assert alive


async def test_any_worker_answers_for_all_and_names_one_that_does_not(relay: Relay) -> None:
    """Connections and counts are those of both; a worker that hangs is named within a second."""
    async with asyncio.timeout(WITHIN_S), contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(connected(relay))
        for _ in range(4):  # any worker may be asked
            listed = (await relay.get_internal("/v1/connections", key=READER)).json()
            assert (listed["total"], len(listed["connections"])) == (10, 10)
            stats = (await relay.get_internal("/v1/stats", key=READER)).json()
            assert (stats["connections"], stats["workers"]) == (10, {"answered": 2, "silent": []})
            live: set[int] = set()
            # a worker hears within two seconds of another one that has come back
            while not live >= {1, 2}:
                nodes = (await relay.get_internal("/v1/nodes", key=READER)).json()["nodes"]
                live = {one["worker"] for one in nodes if one["state"] == "live"}
            metrics = (await relay.get_internal("/metrics", key=READER)).text
            families = text_string_to_metric_families(metrics)
            (connections,) = (family for family in families if family.name == "relay_connections")
            assert sum(sample.value for sample in connections.samples) == 10
            assert len({sample.labels["worker"] for sample in connections.samples}) == 2
        recorded = set[str]()
        while recorded != {row["token"] for row in listed["connections"]}:  # records follow within 0.25 s
            answer = await relay.get_internal("/v1/audit?action=connect.accepted&limit=10", key=READER)
            recorded = {record["relay"]["token"]["jti"] for record in answer.json()["records"]}
        stopped = min(workers_of(relay))
        os.kill(stopped, signal.SIGSTOP)
        try:
            while True:
                # a connection that the stopped one accepts waits for it
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        stats = (await relay.get_internal("/v1/stats", key=READER)).json()
                    break
            assert stats["workers"]["answered"] == 1
            assert len(stats["workers"]["silent"]) == 1
        finally:
            os.kill(stopped, signal.SIGCONT)


async def test_a_question_is_answered_from_the_chains_of_both_workers(relay: Relay) -> None:
    """Who is connected now, and what happened to a token of each: any worker may be asked."""
    async with asyncio.timeout(WITHIN_S), contextlib.AsyncExitStack() as stack:
        await relay.admits()
        for _ in range(10):
            await stack.enter_async_context(relay.connect(await relay.token()))
        listed = (await relay.get_internal("/v1/connections", key=READER)).json()["connections"]
        by_worker: list[list[str]] = []
        while len([token for tokens in by_worker for token in tokens if token in str(listed)]) < 10:
            by_worker = list(recorded(relay, "connect.accepted").values())  # records follow within 0.25 s
        assert len(by_worker) == 2
        answer = await ask(relay, "connected?name=prices")
        assert {row["connection"] for row in answer["rows"]} == {row["id"] for row in listed}
        assert "of 2 chains" in answer["notes"][-1]
        for tokens in by_worker:
            story = await ask(relay, f"story?name={tokens[-1]}")
            assert {"token.issued", "connect.accepted"} <= {row["action"] for row in story["rows"]}


async def ask(relay: Relay, question: str) -> dict[str, Any]:
    """Ask the audit log, as often as another question is still being answered."""
    while (
        answer := await relay.get_internal(f"/v1/audit/questions/{question}", key=READER)
    ).status_code == 429:
        pass
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_rolling_restart_refuses_nobody_and_loses_no_message(relay: Relay, tmp_path: Path) -> None:
    """Others connect all the time. Streams go on at the successors, and no client has an old price there."""
    ticks = made_up(tmp_path, symbols=5, rate=50, seconds=300)
    watched = watch(
        "workers", [relay], partial(replace_workers, relay), ticks, tmp_path, clients=20, quiet_s=0
    )
    assert watched.broken() == []
    assert watched.after.ended == 40
    assert watched.after.knocks > 0


async def test_workers_drain_when_their_supervisor_is_killed(relay: Relay) -> None:
    """They would keep the ports otherwise. Their clients are told to come back, as at a restart."""
    pids = workers_of(relay)
    async with asyncio.timeout(WITHIN_S), relay.connect(await relay.token()) as socket_:
        assert relay.process is not None
        relay.process.kill()
        while (await socket_.next())["type"] != "reconnect":
            pass
        await until(lambda: not any(map(is_alive, pids)), within_s=WITHIN_S)
    relay.stop()


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


async def test_a_stop_while_workers_are_replaced_ends_all_of_them(relay: Relay) -> None:
    """Those that have connections drain, and no process is left when their supervisor ends."""
    relay.start()
    async with asyncio.timeout(WITHIN_S), contextlib.AsyncExitStack() as stack:
        await relay.admits()
        sockets = [await stack.enter_async_context(relay.connect(await relay.token())) for _ in range(4)]
        assert relay.process is not None
        relay.process.send_signal(signal.SIGUSR2)
        await until(lambda: len(workers_of(relay)) == 4, within_s=WITHIN_S)
        pids = workers_of(relay)
        assert await asyncio.to_thread(relay.stop) == 0
        assert {(await socket_.closed())[0] for socket_ in sockets} == {1012}
    assert not any(map(is_alive, pids))


def test_workers_need_an_engine(tmp_path: Path) -> None:
    """One sentence, with the lines for the settings; and a number that is none is refused."""
    relay = make_relay(tmp_path)
    relay.arguments = ("--workers", "2")
    with pytest.raises(AssertionError, match=r'did not start(.|\n)*\[engine\]\nurl = "redis://'):
        relay.start()
