"""What `relay doctor` says of the engine: each check on a real server that is made wrong, and right again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.audit.chain import Link
from relay.doctor.engine_memory import memory_need
from relay.doctor.probes import read_engine
from relay.engine import probe
from relay.engine.heads import AuditPosition
from relay.engine.nodes import EngineNodes
from relay.engine.options import EngineOptions
from relay.settings.load import load
from tests.support.doctor_deployment import change
from tests.support.engine_pairs import Servers, has, is_followed
from tests.support.engines import engine_server, until
from tests.support.moved_clock import MovedClock

Found = dict[str, list[str]]


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """An engine of the test's own with a clock that it may move, and a server that can be its replica."""
    folders = [tmp_path_factory.mktemp(name) for name in ("clock", "master", "replica")]
    clock = MovedClock(folders[0])
    with (
        engine_server("redis", folders[1], environment=clock.environment) as master,
        engine_server("redis", folders[2]) as replica,
    ):
        yield Servers(master=master, replica=replica, clock=clock)


async def test_each_check_of_a_real_engine(
    folder: Path, examined: Callable[..., Found], servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, memory, clock, replicas, eviction, role, rights, log-in and version; a good engine has no finding."""
    engine = servers.master
    change(folder, ("[listen]", f'[engine]\nurl = "{engine.url}"\n\n[listen]'))

    async def found() -> Found:
        return examined(engine=await read_engine(load(folder / "relay.toml")))

    assert await found() == {"engine-persistence": ["the engine has neither a file nor a replica"]}
    engine.run("CONFIG", "SET", "appendonly", "yes")
    assert await found() == {}

    engine.run("CONFIG", "SET", "maxmemory", 64 << 20)
    (said,) = (await found())["engine-memory"]
    assert said.startswith("the engine may use 64 MiB, and these settings can need ")
    assert "(the log 72, last values " in said
    need = sum(memory_need(load(folder / "relay.toml"), nodes=2).values())
    engine.run("CONFIG", "SET", "maxmemory", need - 1)
    assert await found() == {}
    for name in ("one", "two"):
        options = engine.options(prefix="r1")
        nodes = EngineNodes(options=EngineOptions(address=options.address), on_format=lambda _: None)
        await nodes.open(AuditPosition(opened=Link(name, 1, "0" * 64), place="here:/log", keep_s=60))
        await nodes.aclose()
    assert list(await found()) == ["engine-memory"]
    engine.run("CONFIG", "SET", "maxmemory", 0)

    servers.clock.move(3)
    assert [said.split(" ms ")[1] for said in (await found())["engine-clock"]] == ["behind the engine's"]
    servers.clock.move(0)

    servers.replica.run("REPLICAOF", "127.0.0.1", engine.port)
    await until(lambda: has(servers.replica, master_link_status="up") and is_followed(engine))
    assert await found() == {
        "engine-replicas": ["the engine has replicas (1), and accepts writes without them"]
    }
    engine.run("CONFIG", "SET", "min-replicas-to-write", 1)
    assert await found() == {}

    for wrong, right, words in (
        (
            ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
            ("CONFIG", "SET", "maxmemory-policy", "noeviction"),
            "noeviction",
        ),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "replica"),
        (("ACL", "SETUSER", "default", "-xadd", "-eval"), ("ACL", "SETUSER", "default", "+@all"), "ACL"),
        (("CONFIG", "SET", "requirepass", "x"), None, "password"),
    ):
        engine.run(*wrong)
        (said,) = (await found())["engine-unusable"]
        assert words in said
        if right is not None:
            engine.run(*right)
    monkeypatch.setattr(probe, "REDIS_AT_LEAST", 99)
    change(folder, (engine.url, f"redis://:x@127.0.0.1:{engine.port}"))
    (said,) = (await found())["engine-unusable"]
    assert "99" in said


@pytest.mark.parametrize(
    ("settings", "part", "mib"),
    [
        ("", "the log", 72),
        ("[limits]\nchannels = 1024", "last values", 1),
        ("[limits]\nchannels = 1024\nconnections = 1", "used tokens", 0),
        ("[limits]\nconnections = 100000", "used tokens", 2 * 2000 * 240 * 110 >> 20),
        ("[limits]\nconnections = 100000", "places of connections", 2 * 100_000 * 150 >> 20),
        (
            '[endpoints.t]\npath = "/ws/t"\nchannels = ["t.>"]\nmode = "stream"\nhistory = { messages = 924 }\n'
            "[limits]\nchannels = 1024",
            "histories",
            1024 * 1024 * 1144 >> 20,
        ),
        (
            '[endpoints.t]\npath = "/ws/t"\nchannels = ["t.A", "t.B"]\nmode = "stream"\n'
            "history = { messages = 924 }",
            "histories",
            2 * 1024 * 1144 >> 20,
        ),
    ],
)
def test_what_the_settings_can_need(folder: Path, settings: str, part: str, mib: int) -> None:
    """By the limits of channels, connections and tokens, the bytes of the log and the histories; of two nodes."""
    file = folder / "relay.toml"
    file.write_text(f"{file.read_text()}\n{settings}\n")
    assert memory_need(load(file), nodes=2)[part] >> 20 == mib


def test_quotas_of_a_publisher_tell_how_long_its_messages_are(folder: Path) -> None:
    """On average, by what it may publish in a second."""
    quotas = 'rate = "100/second"\nbyte_rate = "20000/second"'
    change(folder, ("[publishers.pricing]", f"[publishers.pricing]\n{quotas}"))
    settings = load(folder / "relay.toml")
    assert memory_need(settings, nodes=1)["last values"] == settings.limits.channels * (200 + 120)
