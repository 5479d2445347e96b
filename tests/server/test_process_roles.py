"""One relay in two processes: the issuer has the private key, the stream fetches the public ones."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.keys.rotation import rotate
from tests.support.forged_tokens import issuer_key
from tests.support.http_client import http_client
from tests.support.jws_forgery import forge, header_of
from tests.support.operators import OPERATORS, revoke
from tests.support.ports import free_ports
from tests.support.raw_http import bearing, knock, upgrade
from tests.support.relay_process import Relay, make_relay


@dataclass
class Split:
    """The two processes. Both have the same public addresses; `issuer` and `stream` differ in the internal one."""

    issuer: Relay
    stream: Relay

    async def connects(self, token: str) -> int:
        """Return how the stream answers a handshake with this token."""
        return (await knock(self.stream, fields=[*upgrade(self.stream), bearing(token)])).status


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    """The processes of the tests that change no key."""
    with running_split(tmp_path_factory.mktemp("split")) as both:
        yield both


@pytest.fixture
def split(both: Split) -> Split:
    """The same, each of which runs: a test may have ended it."""
    for relay in (both.issuer, both.stream):
        if relay.process is not None and relay.process.poll() is not None:
            relay.start()
    return both


@pytest.fixture
def own_split(tmp_path: Path) -> Iterator[Split]:
    """Processes of the test's own."""
    with running_split(tmp_path) as own:
        yield own


@contextlib.contextmanager
def running_split(tmp_path: Path) -> Iterator[Split]:
    """Run an issuer, and a stream that fetches its keys."""
    http, stream, internal, other = free_ports(4)
    issuer = make_relay(tmp_path / "issuer", ports=(http, stream, internal))
    issuer.arguments = ("--role", "issuer")
    jwks = f'[tokens]\njwks_url = "http://127.0.0.1:{http}/.well-known/jwks.json"\n{OPERATORS}'
    streamer = make_relay(tmp_path / "stream", ports=(http, stream, other), extra=jwks)
    streamer.arguments = ("--role", "stream")
    shutil.rmtree(streamer.folder / "keys")
    issuer.start()
    streamer.start()
    try:
        yield Split(issuer=issuer, stream=streamer)
    finally:
        streamer.stop()
        issuer.stop()


async def test_a_token_of_the_issuer_opens_the_stream(split: Split) -> None:
    """The stream has no private key, and it accepts each token once."""
    token = await split.issuer.token()
    async with split.stream.connect(token, query="?channels=prices.BTC-USD") as socket_:
        await socket_.read("subscribed")
        assert (await split.stream.publish("prices.BTC-USD", 1)).status_code == 200
        assert (await socket_.read("snapshot"))["data"] == 1
    assert await split.connects(token) == 401
    assert not list((split.stream.folder / "keys").glob("*.pem"))


async def test_each_role_has_its_own_listeners(split: Split) -> None:
    """The issuer accepts no publications; both processes answer health checks."""
    assert (await split.issuer.publish("prices.BTC-USD", 1)).status_code == 404
    async with http_client() as client:
        for relay in (split.issuer, split.stream):
            assert (await client.get(f"{relay.internal_url}/ready")).status_code == 200
    split.stream.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", split.issuer.ports[1]))
    split.stream.start()


async def test_a_new_key_is_looked_up(own_split: Split) -> None:
    """A key may sign before it was published for a while: the stream fetches the keys for an unknown kid."""
    split = own_split
    assert await split.connects(await split.issuer.token()) == 101
    new = rotate(split.issuer.folder / "keys", now=time.time(), publish_before_sign_s=0).key
    while header_of(token := await split.issuer.token())["kid"] != new.kid:
        pass
    assert await split.connects(token) == 101


async def test_a_stream_is_told_of_a_revoked_key(own_split: Split) -> None:
    """After POST /v1/revocations it refuses the key and closes its connections, also after a restart."""
    split = own_split
    old = issuer_key(split.issuer)
    stolen, unused = [await split.issuer.token() for _ in range(2)]
    assert header_of(stolen)["kid"] == old.kid
    async with split.stream.connect(stolen) as socket_:
        rotate(split.issuer.folder / "keys", now=time.time(), publish_before_sign_s=0)
        while header_of(token := await split.issuer.token())["kid"] == old.kid:
            pass
        async with split.stream.connect(token) as good:
            assert await revoke(split.stream, kid=old.kid) == 1
            assert (await socket_.closed())[0] == 4001
            await good.send(type="ping", id=1)
            while (await good.next())["type"] != "pong":
                pass
    assert await split.connects(unused) == 401
    await split.stream.audited("connect.denied", reason="key_revoked")
    record = await split.stream.audited("session.revoked")
    assert (record["relay"]["revoked"], record["relay"]["token"]) == ("key", {"kid": old.kid})
    split.stream.stop()
    split.stream.start()
    assert await split.connects(unused) == 401
    assert await split.connects(await split.issuer.token()) == 101


async def test_a_stream_survives_the_issuer_s_absence(split: Split) -> None:
    """Known keys stay valid; a token with a kid that can't be looked up is refused with 503 and not 401.

    A token without a readable kid is refused without a call to the issuer.
    """
    key = issuer_key(split.issuer)
    tokens = [await split.issuer.token() for _ in range(2)]
    assert await split.connects(tokens[0]) == 101
    split.issuer.kill()
    assert await split.connects(tokens[1]) == 101
    unknown = forge({"typ": "scoped+jwt", "alg": "EdDSA", "kid": "0" * 16}, {}, key.key)
    assert await split.connects(unknown) == 503
    await split.stream.audited("connect.denied", reason="keys_unavailable")
    assert await split.connects("a.b.c") == 401


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `relay config check`."""
    command = [sys.executable, "-m", "relay", "config", "check", "--config", str(folder / "relay.toml")]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def test_config_check_says_what_split_processes_do_not_share(tmp_path: Path) -> None:
    """The note is shown with a role, and not for a single process."""
    relay = make_relay(tmp_path)
    note = "don't share used tokens and revocations"
    assert note not in check(relay.folder).stdout
    assert note in check(relay.folder, "--role", "issuer").stdout
    assert note in check(relay.folder, "--role", "stream").stdout


def test_an_issuer_needs_a_private_key_and_a_stream_does_not(tmp_path: Path) -> None:
    """A folder of public keys is enough for a stream; the error for an issuer says what to do."""
    relay = make_relay(tmp_path)
    next((tmp_path / "keys").glob("*.pem")).unlink()
    assert check(relay.folder, "--role", "stream").returncode == 0
    for role in ("issuer", "all"):
        done = check(relay.folder, "--role", role)
        assert (done.returncode, "has no private key" in done.stderr) == (2, True)


def test_an_ingest_needs_an_engine_and_a_publisher(tmp_path: Path) -> None:
    """Each is named with what to do; no key is needed, because it sees no token. The settings may say the role."""
    relay = make_relay(tmp_path)
    done = check(relay.folder, "--role", "ingest")
    assert (done.returncode, "The role ingest needs engine.url" in done.stderr) == (2, True)
    file = relay.folder / "relay.toml"
    engine = '[engine]\nurl = "redis://127.0.0.1:6379"\n[bff.fields]\nrefresh_token = ""\n'
    text = file.read_text().replace("[listen]\n", '[listen]\nrole = "ingest"\n') + engine
    file.write_text(text)
    shutil.rmtree(tmp_path / "keys")
    done = check(relay.folder)
    assert done.returncode == 0, done.stderr
    assert "don't share" not in done.stdout
    before, _, after = text.partition("[publishers.pricing]")
    file.write_text(before + after[after.index("\n[") + 1 :])
    done = check(relay.folder)
    assert (done.returncode, "The role ingest needs a publisher" in done.stderr) == (2, True)
