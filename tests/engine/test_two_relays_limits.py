"""Limits and revocations of users over two relays on one engine."""

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError

from tests.support.engines import EngineServer, engine_server
from tests.support.http_client import http_client
from tests.support.operators import OPERATORS, READER, revoke
from tests.support.relay_process import PUBLISHER_SECRET, Relay, Socket
from tests.support.reloading import reload
from tests.support.two_relays import two_relays

SLOW = f"""[publishers.slow]
secret_sha256 = ["{hashlib.sha256(PUBLISHER_SECRET.encode()).hexdigest()}"]
channels = ["slow.>"]
rate = "20/hour"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """The engine of both."""
    with engine_server("redis", tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory, engine: EngineServer) -> Iterator[tuple[Relay, Relay]]:
    """Two relays with low limits."""
    limits = {"RELAY_LIMITS__TOKENS_PER_SESSION": "8/hour", "RELAY_LIMITS__CONNECTIONS_PER_SESSION": "2"}
    limits["RELAY_ENGINE__READY_AFTER_S"] = "1"
    folder = tmp_path_factory.mktemp("relays")
    with two_relays(folder, engine, extra=OPERATORS + SLOW, environment=limits) as both:
        yield both


async def ask(relay: Relay, session: str) -> int:
    """Ask for a token as a server does, and return the status."""
    async with http_client() as client:
        headers = {"Authorization": f"Bearer {session}"}
        return (await client.post(f"{relay.url}/auth/ws-token", headers=headers)).status_code


async def test_a_sessions_limit_holds_over_both(relays: tuple[Relay, Relay]) -> None:
    """Eight tokens an hour, wherever they are asked for."""
    session = relays[0].session()
    statuses = [await ask(relays[n % 2], session) for n in range(10)]
    assert statuses == [200] * 8 + [429] * 2
    assert await ask(relays[1], relays[1].session()) == 200


async def test_a_sessions_connections_count_over_both(relays: tuple[Relay, Relay]) -> None:
    """Two of them: the third ends the first on the other relay, and the next one ends that on its own."""
    one, other = relays
    session, origin = one.session(), {"origin": one.url}
    opened: list[Socket] = []
    async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
        await one.admits()
        for relay in (one, one, other, other):
            connecting = relay.connect(await one.token(session), **origin)
            opened.append(await stack.enter_async_context(connecting))
        assert [await socket.closed() for socket in opened[:2]] == [(4504, "replaced")] * 2
        for socket in opened[2:]:
            await socket.send(type="ping", id=1)
            while (await socket.next())["type"] != "pong":
                pass


async def test_a_full_session_is_refused_by_both(relays: tuple[Relay, Relay]) -> None:
    """Six tokens come to both at the same moment. Two are admitted, the others can be used when there is a place."""
    for relay in relays:
        await reload(relay, ("[limits]\n", '[limits]\nover = "refuse"\n'))
    session, origin = relays[0].session(), {"origin": relays[0].url}
    admitted: dict[str, contextlib.AsyncExitStack] = {}
    codes: list[int | None] = []

    async def enter(relay: Relay, token: str) -> None:
        socket = contextlib.AsyncExitStack()
        try:
            await socket.enter_async_context(relay.connect(token, **origin))
        except ConnectionClosedError as refused:
            codes.append(refused.rcvd.code if refused.rcvd else None)
        else:
            admitted[token] = socket

    async with asyncio.timeout(60):
        await relays[0].admits()
        tokens = [await relays[0].token(session) for _ in range(6)]
        await asyncio.gather(*(enter(relays[n % 2], token) for n, token in enumerate(tokens)))
        assert (len(admitted), codes) == (2, [4503] * 4)
        await admitted[next(iter(admitted))].aclose()
        late = next(token for token in tokens if token not in admitted)
        while late not in admitted:  # a place that became free is told to the engine a moment later
            await enter(relays[0], late)
        for socket in admitted.values():
            await socket.aclose()
    for relay in relays:
        await reload(relay, ('over = "refuse"\n', ""))


async def test_a_publishers_quota_holds_over_both(relays: tuple[Relay, Relay]) -> None:
    """What one relay let through is no more to be had at the other."""

    async def publish(relay: Relay) -> int:
        return (
            await relay.publish_raw(b'{"channel":"slow.a","data":1}', key=f"slow.{PUBLISHER_SECRET}")
        ).status_code

    statuses = [await publish(relays[0]) for _ in range(21)]
    assert statuses == [200] * 20 + [429]
    passed = 0
    async with asyncio.timeout(20):
        while await publish(relays[1]) != 429:
            passed += 1
            await asyncio.sleep(0.05)
    assert passed < 20


async def test_a_revoked_users_session_that_the_other_relay_saw_does_not_come_back(
    relays: tuple[Relay, Relay],
) -> None:
    """It renews its access token, which is newer than the revocation; a log-in after the revocation is another one."""
    sid, user = secrets.token_hex(8), f"user-{secrets.token_hex(4)}"
    now = int(time.time())
    assert await ask(relays[1], relays[1].session(sub=user, sid=sid, iat=now - 10)) == 200
    await revoke(relays[0], sub=user)
    renewed = relays[1].session(sub=user, sid=sid, iat=int(time.time()) + 1)
    async with asyncio.timeout(20):
        while await ask(relays[0], renewed) != 401:  # noqa: ASYNC110  # the other relay tells it
            await asyncio.sleep(0.05)
    assert await ask(relays[1], renewed) == 401
    assert await ask(relays[0], relays[0].session(sub=user, iat=int(time.time()) + 1)) == 200


async def test_an_engine_whose_memory_is_full_is_told(
    relays: tuple[Relay, Relay], engine: EngineServer
) -> None:
    """No token can be used and nothing be published, so load balancers learn why; and when it is over."""
    one, _ = relays
    async with http_client(base_url=one.internal_url) as client, asyncio.timeout(60):

        async def ready(role: str) -> httpx.Response:
            return await client.get("/ready", params={"role": role})

        engine.run("CONFIG", "SET", "maxmemory", "1")
        try:
            for role in ("stream", "ingest"):
                while "stores nothing" not in (text := (await ready(role)).text):  # noqa: ASYNC110  # it has no event
                    await asyncio.sleep(0.05)
                assert "OOM" in text
            assert (await ready("issuer")).status_code == 200
        finally:
            engine.run("CONFIG", "SET", "maxmemory", "0")
        for role in ("stream", "ingest"):
            while (await ready(role)).status_code != 200:  # noqa: ASYNC110  # after two seconds of answers
                await asyncio.sleep(0.05)


async def test_an_engine_that_may_evict_keys_is_told(
    relays: tuple[Relay, Relay], engine: EngineServer
) -> None:
    """Somebody changed the policy while the relays run. They serve until a key was evicted, and say what to do."""
    one, _ = relays

    async def figures() -> list[Any]:
        nodes = (await one.get_internal("/v1/nodes", key=READER)).json()["nodes"]
        return [node.get("engine", {"warning": None}) for node in nodes]  # a node's first row has no figures

    async with http_client(base_url=one.internal_url) as client, asyncio.timeout(60):
        engine.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            while "warning" not in (answer := await client.get("/ready")).json():  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.05)
            assert answer.status_code == 200
            assert "Set maxmemory-policy to noeviction" in answer.json()["warning"]
            while {one["warning"] for one in await figures()} != {answer.json()["warning"]}:  # noqa: ASYNC110  # the other one
                await asyncio.sleep(0.05)
            assert "relay_engine_may_evict 1.0" in (await one.get_internal("/metrics", key=READER)).text
            engine.run("CONFIG", "SET", "maxmemory", engine.run("INFO", "memory")["used_memory"] + 200_000)
            for number in range(40):
                engine.run("SET", f"other:{number}", "x" * 10_000)
            while (answer := await client.get("/ready?role=stream")).status_code == 200:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.05)
            assert "has evicted" in answer.text
        finally:
            engine.run("CONFIG", "SET", "maxmemory", "0")
            engine.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
        while (await client.get("/ready")).json() != {"status": "ok"}:  # noqa: ASYNC110  # after it has asked again
            await asyncio.sleep(0.05)
    assert "the engine may evict keys" in one.log_path.read_text()
    while "the engine evicts no keys again" not in one.log_path.read_text():  # noqa: ASYNC110  # its next look
        await asyncio.sleep(0.05)
