"""Two relays as processes on one engine, as users run them."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from shutil import rmtree

import pytest
from typer.testing import CliRunner
from websockets.exceptions import InvalidStatus

from relay.cli.audit import app as audit_app
from tests.support.engines import EngineServer
from tests.support.operators import OPERATORS, READER
from tests.support.relay_process import REF_KEY, Relay, make_relay
from tests.support.two_relays import WITHOUT_REFRESH, on_engine, two_relays


async def test_two_relays_are_one(tmp_path: Path, own_engine: EngineServer) -> None:
    """A token is used once over both, ticks reach both, and a log-out ends the sockets of both."""
    with two_relays(tmp_path, own_engine) as (one, other):
        origin = {"origin": one.url}
        session = one.session()
        async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
            token = await one.token(session)
            while True:  # an engine that has just begun refuses tokens from before that
                try:
                    here = await stack.enter_async_context(
                        one.connect(token, query="?channels=prices.A", **origin)
                    )
                    break
                except InvalidStatus as error:
                    if error.response.status_code != 503:
                        raise
                    token = await one.token(session)
            with pytest.raises(InvalidStatus) as refused:
                await stack.enter_async_context(other.connect(token, **origin))
            assert refused.value.response.status_code == 401
            there = await stack.enter_async_context(
                other.connect(await one.token(session), query="?channels=prices.A", **origin)
            )
            assert (await one.publish("prices.A", 7)).status_code == 200
            for client in (here, there):
                while (frame := await client.next()).get("data") != 7:
                    pass
                assert frame["channel"] == "prices.A"
            assert (await one.logout(session)).status_code < 300
            assert (await there.closed())[0] == 4501
            assert (await here.closed())[0] == 4501
            own_engine.stop()
            answer = await one.publish("prices.A", 8)
            assert answer.status_code == 503
            with pytest.raises(InvalidStatus) as away:
                async with other.connect(await one.token(), **origin):
                    pass
            assert away.value.response.status_code == 503


async def test_live_revocations_move_from_the_file_to_the_engine(
    tmp_path: Path, own_engine: EngineServer
) -> None:
    """A relay that gets an engine takes its revocations along, and another node knows them too."""
    alone = make_relay(tmp_path / "one", bff=WITHOUT_REFRESH)
    session = alone.session()
    alone.start()
    try:
        assert (await alone.logout(session)).status_code < 300
    finally:
        assert alone.stop() == 0
    with two_relays(tmp_path, own_engine) as (one, other):
        await one.admits()
        for relay in (one, other):
            assert (await relay.ask(session, headers={"Origin": one.url})).status_code == 401
            await relay.audited("token.denied", reason="session_revoked")


async def listed(relay: Relay, *rows: tuple[str, str, int]) -> None:
    """Wait until a node lists these: role, state and connections."""
    while True:
        nodes = (await relay.get_internal("/v1/nodes", key=READER)).json()["nodes"]
        if {(one["role"], one["state"], one.get("connections")) for one in nodes} == set(rows):
            return
        await asyncio.sleep(0.05)  # a node writes its row every two seconds


async def test_an_ingest_publishes_to_a_stream(tmp_path: Path, own_engine: EngineServer) -> None:
    """It has the internal listener alone, and no key; subscribers elsewhere get what it gets. It lists both nodes, and
    the engine keeps the head of the other's audit log."""
    stream, ingest = (
        on_engine(tmp_path / name, own_engine, extra=OPERATORS) for name in ("stream", "ingest")
    )
    ingest.arguments = ("--role", "ingest")
    rmtree(ingest.folder / "keys")
    with contextlib.ExitStack() as stack:
        for relay in (stream, ingest):
            relay.start()
            stack.callback(relay.stop)
        async with asyncio.timeout(60), contextlib.AsyncExitStack() as sockets:
            while True:  # an engine that has just begun refuses tokens from before that
                with contextlib.suppress(InvalidStatus):
                    connecting = stream.connect(await stream.token(), query="?channels=prices.A")
                    socket_ = await sockets.enter_async_context(connecting)
                    break
            assert (await ingest.get_internal("/ready?role=ingest", key=READER)).status_code == 200
            assert (await ingest.publish("prices.A", 7)).status_code == 200
            while (frame := await socket_.next()).get("data") != 7:
                pass
            assert frame["channel"] == "prices.A"
            await listed(ingest, ("all", "live", 1), ("ingest", "live", 0))
        async with asyncio.timeout(60):
            assert stream.stop() == 0
            await listed(ingest, ("all", "stopped", 0), ("ingest", "live", 0))
        (stream.folder / "relay-state.db").unlink()  # the engine alone knows how long the audit log is
        verify = ["verify", "--config", str(stream.folder / "relay.toml")]
        found = await asyncio.to_thread(CliRunner().invoke, audit_app, verify)
        assert found.exit_code == 0, found.output
        assert "that is its end, as the given head proves, the head is the engine's" in found.output
        for port in ingest.ports[:2]:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)


def test_a_wrong_engine_is_named_at_the_start(tmp_path: Path, own_engine: EngineServer) -> None:
    """In one sentence, and the relay does not start."""
    own_engine.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    with pytest.raises(
        AssertionError, match=r"did not start(.|\n)*engine\.url: 127\.0\.0\.1:\d+ has maxmemory-policy"
    ):
        on_engine(tmp_path, own_engine).start()


def test_another_key_of_references_is_named_at_the_start(tmp_path: Path, own_engine: EngineServer) -> None:
    """With it a log-out at one relay would not end the connections at the other."""
    one, other = (on_engine(tmp_path / name, own_engine) for name in ("one", "other"))
    settings = other.folder / "relay.toml"
    settings.write_text(settings.read_text().replace(REF_KEY, REF_KEY[::-1]))
    one.start()
    try:
        with pytest.raises(AssertionError, match=r"did not start(.|\n)*session\.ref_key: the node "):
            other.start()
    finally:
        one.stop()
    other.start()
    other.stop()


def test_a_relay_without_an_engine_does_not_import_redis() -> None:
    """Neither the package nor the adapters."""
    program = (
        "import sys, relay.server.run; assert not {'redis', 'relay.engine.connection'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
