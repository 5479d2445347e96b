"""Two relays as processes on one engine, as users run them."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.engines import EngineServer
from tests.support.relay_process import Relay, make_relay


def on_engine(folder: Path, engine: EngineServer) -> Relay:
    """Write a relay's settings with this engine."""
    bff = 'backend = "http://127.0.0.1:9"\n[bff.fields]\nrefresh_token = ""'
    return make_relay(folder, bff=bff, extra=f'[engine]\nurl = "{engine.url}"')


@contextlib.contextmanager
def two(folder: Path, engine: EngineServer) -> Iterator[tuple[Relay, Relay]]:
    """Run two relays with the same keys and audiences: the second answers for the names of the first."""
    one = on_engine(folder / "one", engine)
    other = on_engine(folder / "other", engine)
    settings = (other.folder / "relay.toml").read_text()
    for mine, theirs in zip(other.ports[:2], one.ports[:2], strict=True):
        settings = settings.replace(f'"http://127.0.0.1:{mine}"', f'"http://127.0.0.1:{theirs}"')
        settings = settings.replace(f'"ws://127.0.0.1:{mine}"', f'"ws://127.0.0.1:{theirs}"')
    (other.folder / "relay.toml").write_text(settings)
    shutil.rmtree(other.folder / "keys")
    shutil.copytree(one.folder / "keys", other.folder / "keys")
    with contextlib.ExitStack() as stack:
        for relay in (one, other):
            relay.start()
            stack.callback(relay.stop)
        yield one, other


async def test_two_relays_are_one(tmp_path: Path, own_engine: EngineServer) -> None:
    """A token is used once over both, ticks reach both, and a log-out ends the sockets of both."""
    with two(tmp_path, own_engine) as (one, other):
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


def test_a_wrong_engine_is_named_at_the_start(tmp_path: Path, own_engine: EngineServer) -> None:
    """In one sentence, and the relay does not start."""
    own_engine.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    with pytest.raises(
        AssertionError, match=r"did not start(.|\n)*engine\.url: 127\.0\.0\.1:\d+ has maxmemory-policy"
    ):
        on_engine(tmp_path, own_engine).start()


def test_a_relay_without_an_engine_does_not_import_redis() -> None:
    """Neither the package nor the adapters."""
    program = (
        "import sys, relay.server.run; assert not {'redis', 'relay.engine.connection'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_refresh_cookies_need_one_node(tmp_path: Path, own_engine: EngineServer) -> None:
    """Two nodes would renew one refresh token, so such a relay does not start."""
    relay = on_engine(tmp_path, own_engine)
    file = relay.folder / "relay.toml"
    file.write_text(file.read_text().replace('refresh_token = ""', 'refresh_token = "refresh"'))
    with pytest.raises(
        AssertionError, match=r"did not start(.|\n)*engine\.url can't be used with refresh cookies"
    ):
        relay.start()
