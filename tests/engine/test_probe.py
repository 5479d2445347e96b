"""The address of the engine, and the checks before the start: one sentence that names the setting."""

import asyncio
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from relay.broker.base import Position
from relay.core.errors import ConfigurationError
from relay.core.publications import parse_draft
from relay.engine import connection
from relay.engine import probe as probing
from relay.engine.address import Address, read_address
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.connection import open_connection
from relay.engine.probe import probe
from relay.engine.scripts import script
from relay.engine.state import EngineState
from tests.support import readme
from tests.support.certificates import Authority
from tests.support.engine_invariants import engine_tasks
from tests.support.engines import KINDS, Engines, EngineServer, engine_server
from tests.support.ports import free_ports

REFERENCE = readme.ROOT / "relay/engine/README.md"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need more than a second for a connection by TLS."""
    monkeypatch.setattr(connection, "CONNECT_WITHIN_S", 30.0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", Address(kind="tcp", hosts=[("cache", 6379)])),
        ("redis://cache:7000/2", Address(kind="tcp", hosts=[("cache", 7000)], database=2)),
        ("redis://:p%40ss@cache", Address(kind="tcp", hosts=[("cache", 6379)], password="p@ss")),
        (
            "redis://relay:pw@[::1]:7000",
            Address(kind="tcp", hosts=[("::1", 7000)], user="relay", password="pw"),
        ),
        (
            "rediss://cache?ca_file=/etc/ca.pem&db=3",
            Address(kind="tcp", hosts=[("cache", 6379)], database=3, tls=True, ca_file="/etc/ca.pem"),
        ),
        ("unix:///run/redis.sock?db=1", Address(kind="unix", path="/run/redis.sock", database=1)),
        (
            "redis+sentinel://one,two:26380/prices",
            Address(kind="sentinel", hosts=[("one", 26379), ("two", 26380)], service="prices"),
        ),
        (
            "rediss+cluster://relay:pw@one,two:7000",
            Address(
                kind="cluster", hosts=[("one", 6379), ("two", 7000)], tls=True, user="relay", password="pw"
            ),
        ),
    ],
)
def test_an_address_is_read(url: str, expected: Address) -> None:
    """Each form, with user, password, database and TLS."""
    assert read_address(url) == expected
    assert "p@ss" not in repr(read_address(url))


REFUSED = """
cache:6379 http://cache redis:// redis://a,b redis://cache/x redis://cache?ssl=1 unix:// redis+sentinel://one
redis://cache:port unix://host/path redis://cache#x redis+cluster:// redis+cluster://a,b/name redis+cluster://a?db=1
redis+other://a
"""


@pytest.mark.parametrize("url", ["", *REFUSED.split()])
def test_another_address_is_refused(url: str) -> None:
    """The sentence names the setting and the forms, and not a password."""
    with pytest.raises(ConfigurationError, match=r"engine\.url .* redis\+sentinel://.* redis\+cluster://"):
        read_address(url)


def test_the_password_may_be_in_a_file(tmp_path: Path) -> None:
    """Without its line break; a missing file is named."""
    file = tmp_path / "password"
    file.write_text("secret\n")
    assert read_address("redis://relay@cache", password_file=file).password == "secret"
    with pytest.raises(ConfigurationError, match=r"engine\.password_file"):
        read_address("redis://cache", password_file=tmp_path / "none")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_is_accepted(engines: Engines, kind: str) -> None:
    """Over TCP and over its Unix socket."""
    engine = engines(kind)
    await probe(engine.options())
    await probe(engine.options(f"unix://{engine.socket}"))


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ([("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")], "maxmemory-policy allkeys-lru.*noeviction"),
        ([("CONFIG", "SET", "maxmemory", "1")], "no memory left.*Raise maxmemory"),
        ([("CONFIG", "SET", "requirepass", "secret")], r"wants a password.*engine\.password_file"),
        ([("REPLICAOF", "127.0.0.1", "1")], "replica.*master"),
        ([("ACL", "SETUSER", "default", "-info")], r"ACL user info, .* \+info,"),
        ([("ACL", "SETUSER", "default", "-zadd", "-hscan")], r"ACL user hscan, zadd, .* \+hscan \+zadd,"),
        ([("ACL", "SETUSER", "default", "-eval")], r"ACL user eval, .* \+eval,"),
        ([("ACL", "SETUSER", "default", "resetkeys", "~other:*")], r"~t\w+:\*, and ACL SAVE"),
    ],
)
async def test_an_engine_that_does_not_fit_is_named(
    own_engine: EngineServer, commands: list[tuple[str, ...]], words: str
) -> None:
    """With what to do."""
    for command in commands:
        own_engine.run(*command)
    with pytest.raises(ConfigurationError, match=rf"engine\.url: 127\.0\.0\.1:\d+ .*{words}"):
        await probe(own_engine.options())


@pytest.mark.parametrize(
    ("info", "is_redis_6", "words"),
    [
        ("'redis_version:6.2.14\\r\\n'", True, r"Redis 6\.2\.14, which is too old"),
        ("{err = 'NOPERM'}", True, "Redis of an unknown version, which is too old"),
        ("'redis_version:7.2.4\\r\\nvalkey_version:7.2.9\\r\\n'", False, r"Valkey 7\.2\.9, which is too old"),
    ],
)
async def test_a_server_that_is_too_old_is_named(
    info: str, is_redis_6: bool, words: str, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the version that is needed. The script sees what such a server shows: before Redis 7 it can check no ACL."""
    real = script("probe")
    seen = f"pcall = function() return {info} end" + (", acl_check_cmd = false" if is_redis_6 else "")
    text = f"local redis = setmetatable({{{seen}}}, {{__index = redis}})\n{real.text}"
    monkeypatch.setattr(probing, "script", lambda _name: replace(real, text=text))
    with pytest.raises(ConfigurationError, match=rf"{words}\. Use Redis 7 or Valkey 8, or a later version"):
        await probe(engines("redis").options())


async def test_a_wrong_password_and_a_missing_engine_are_named(
    own_engine: EngineServer, tmp_path: Path
) -> None:
    """Each in one sentence, without the password."""
    own_engine.run("CONFIG", "SET", "requirepass", "secret")
    await probe(own_engine.options(f"redis://:secret@127.0.0.1:{own_engine.port}"))
    for url, words in [
        (f"redis://:hunter2@127.0.0.1:{own_engine.port}", "refuses the log-in"),
        (f"redis://nobody:hunter2@127.0.0.1:{own_engine.port}", "refuses the log-in"),
        (f"redis://127.0.0.1:{free_ports(1)[0]}", "does not answer.*Start the engine"),
        (f"unix://{tmp_path}/none.sock", "does not answer"),
        (f"redis+sentinel://127.0.0.1:{free_ports(1)[0]}/prices", "no Sentinel names the master"),
        (
            f"rediss://127.0.0.1:{own_engine.port}?ca_file={tmp_path}/none.pem",
            r"ca_file .*none\.pem can't be read",
        ),
    ]:
        with pytest.raises(ConfigurationError, match=words) as caught:
            await probe(own_engine.options(url))
        assert "hunter2" not in str(caught.value)


async def test_a_server_that_is_not_what_the_address_says_is_named(own_engine: EngineServer) -> None:
    """With what to do: it answers, and something else is wrong."""
    for url, words in [
        ("redis://127.0.0.1:{}/99", r"has no database 99 \(DB index is out of range\)\. Correct its number"),
        ("redis+sentinel://127.0.0.1:{}/prices", "is no Sentinel .*use redis://host:port"),
        ("redis+cluster://127.0.0.1:{}", "is no cluster .*Use redis://host:port"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            await probe(own_engine.options(url.format(own_engine.port)))


async def test_a_server_of_another_kind_is_named(own_engine: EngineServer) -> None:
    """As when engine.url has the port of a web server."""

    def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    http = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with http:
        port = http.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"is no Redis or Valkey .*Correct the port"):
            await probe(own_engine.options(f"redis://127.0.0.1:{port}"))


def test_the_acl_of_the_reference_has_the_commands_of_the_code(engines: Engines) -> None:
    """Those of the scripts and of the modules, each of which the probe asks for. A cluster needs one more."""
    (acl,) = (block.text for block in readme.read(REFERENCE).blocks if "-@all" in block.text)
    allowed = {word[1:] for word in acl.split() if word.startswith("+")}
    room = REFERENCE.parent
    scripts = {path.stem: path.read_text() for path in (room / "lua").glob("*.lua")}
    called = re.findall(r"redis\.call\('(\w+)'", "".join(scripts.values()))
    named = re.findall(r'"([A-Z]+)"', "".join(path.read_text() for path in room.glob("*.py")))
    listed = engines("redis").run("EVAL", "return redis.call('COMMAND', 'LIST')", 0)
    commands = {name.decode() for name in listed} - {
        "cluster",
        "readonly",
    }  # the second is the code of an error, too
    assert {name.lower() for name in (*called, *named)} & commands == allowed - {"select"}
    assert set(re.findall(r"\{'([a-z]+)'", scripts["probe"])) == allowed - {"eval", "select"}


async def test_the_acl_of_the_reference_is_enough(own_engine: EngineServer) -> None:
    """A user with these commands alone can do all that a node does."""
    (acl,) = (block.text for block in readme.read(REFERENCE).blocks if "-@all" in block.text)
    own_engine.run("ACL", "SETUSER", "relay", "on", ">pw", *acl.split())
    options = own_engine.options(f"redis://relay:pw@127.0.0.1:{own_engine.port}", prefix="r1")
    await probe(options)
    state = await EngineState.open(options)
    later = time.time() + 3600
    assert await state.claim("jti", expires_at=later + 30, issued_at=later)
    await state.revoke("one", at=later, until=later + 1)
    broker = EngineBroker(options, max_channels=9, history_of=lambda _: KeptHistory(messages=9, seconds=9))
    draft = parse_draft(b'{"channel":"a","data":1,"version":1,"idempotency_key":"k"}')
    published = await broker.publish(draft, ts=1)
    assert isinstance(published, Position)
    assert (await broker.load()).values
    assert await broker.history("a", after=Position(epoch=published.epoch, seq=0))
    assert await broker.remove("a")
    await broker.aclose()
    await state.aclose()


async def test_the_master_is_asked_of_the_sentinels(own_engine: EngineServer, tmp_path: Path) -> None:
    """Of the first one that answers. One task asks for all connections. A name that it does not know is an error.

    A Sentinel that wants a password gets that of the engine.
    """
    (port,) = free_ports(1)
    (tmp_path / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor prices 127.0.0.1 {own_engine.port} 1\n"
    )
    program = shutil.which("redis-sentinel") or shutil.which("redis-server")
    assert program is not None
    with subprocess.Popen(  # noqa: ASYNC220  # it returns at once
        [program, str(tmp_path / "sentinel.conf"), "--sentinel"], stdout=subprocess.DEVNULL
    ) as process:
        try:
            sentinel = EngineServer("", tmp_path, port)
            sentinel.wait()
            (dead,) = free_ports(1)
            url = f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{port}"
            master = await open_connection(read_address(f"{url}/prices"), "c")
            (reply,) = await master.run([("PING",)], within_s=5)
            assert reply == b"PONG"
            other = await open_connection(read_address(f"{url}/prices"), "j")
            assert engine_tasks() == ["relay-engine-follow"]
            await master.close()
            assert await other.run([("PING",)], within_s=5) == [b"PONG"]
            await other.close()
            assert engine_tasks() == []
            with pytest.raises(ConfigurationError, match="knows no master other"):
                await probe(own_engine.options(f"{url}/other"))
            sentinel.run("ACL", "SETUSER", "default", "resetpass", ">secret")
            with pytest.raises(
                ConfigurationError, match=rf"the Sentinel 127\.0\.0\.1:{port} wants a password"
            ):
                await probe(own_engine.options(f"{url}/prices"))
            own_engine.run("CONFIG", "SET", "requirepass", "secret")
            await probe(own_engine.options(f"redis+sentinel://:secret@{url.partition('//')[2]}/prices"))
        finally:
            process.kill()


async def test_tls_with_a_private_authority_and_an_acl_user(tmp_path: Path) -> None:
    """The certificate is checked against `ca_file`; without it, or for another name, the engine is refused.

    The file is read again when it has changed, and only then.
    """
    authority = Authority(tmp_path)
    pair = authority.issue("127.0.0.1")
    (port,) = free_ports(1)
    arguments = ["--tls-port", port, "--tls-auth-clients", "no", "--tls-cert-file", pair.cert]
    arguments += ["--tls-key-file", pair.key, "--tls-ca-cert-file", authority.path]
    (tmp_path / "engine").mkdir()
    with engine_server("redis", tmp_path / "engine", *map(str, arguments)) as engine:
        (acl,) = (block.text for block in readme.read(REFERENCE).blocks if "-@all" in block.text)
        engine.run("ACL", "SETUSER", "relay", "on", ">pw", *acl.split())
        url = f"rediss://relay:pw@127.0.0.1:{port}"
        options = engine.options(f"{url}?ca_file={authority.path}", prefix="r1")
        await probe(options)
        state = await EngineState.open(options)
        later = time.time() + 3600
        assert await state.claim("jti", expires_at=later + 30, issued_at=later)
        await state.aclose()
        for refused in (url, f"rediss://relay:pw@localhost:{port}?ca_file={authority.path}"):
            with pytest.raises(ConfigurationError, match=r"(?i)certificate"):
                await probe(engine.options(refused))
        other = tmp_path / "other"
        other.mkdir()
        authority.path.write_bytes(Authority(other).path.read_bytes())
        with pytest.raises(ConfigurationError, match=r"(?i)certificate"):
            await probe(options)
