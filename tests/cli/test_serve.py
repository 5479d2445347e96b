"""`relay serve`: what it says when it runs, and the one line when it can't."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import Relay, make_relay


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    """A relay that is ready to be started."""
    return make_relay(tmp_path)


def start(relay: Relay) -> tuple[int, str]:
    """Start it in vain; return exit code and the one line on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "relay", "serve", "--config", str(relay.folder / "relay.toml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return done.returncode, line


def change(relay: Relay, old: str, new: str) -> None:
    """Change the settings file."""
    text = (relay.folder / "relay.toml").read_text()
    assert old in text
    (relay.folder / "relay.toml").write_text(text.replace(old, new))


@pytest.fixture(params=[0, 1, 2], ids=["http", "stream", "internal"])
def taken(relay: Relay, request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """One of the three ports, held by somebody else."""
    port = relay.ports[request.param]
    with socket.create_server(("127.0.0.1", port)):
        yield ("http", "stream", "internal")[request.param], port


def test_a_port_in_use_is_one_line(relay: Relay, taken: tuple[str, int]) -> None:
    """It names setting and port; exit code 2."""
    name, port = taken
    assert start(relay) == (2, f"listen.{name}: can't listen on 127.0.0.1:{port}: Address already in use.")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1:8000", "Cannot assign requested address"),
        ("no-such-host.invalid:8000", "listen.http: can't listen on no-such-host.invalid:8000: "),
        ("[::1]:x", 'must be "host:port"'),
        ("a" * 70 + ".invalid:8000", "can't listen on"),
    ],
)
def test_an_address_that_is_not_ours_is_one_line(relay: Relay, address: str, why: str) -> None:
    """Another machine's address, an unknown name, a label that is too long."""
    change(relay, f'"127.0.0.1:{relay.ports[0]}"', f'"{address}"')
    code, line = start(relay)
    assert code == 2
    assert why in line


def test_a_second_relay_is_one_line(relay: Relay) -> None:
    """The same settings twice: the ports are taken; with other ports, the audit log is."""
    relay.start()
    try:
        code, line = start(relay)
        assert (code, "listen.http" in line) == (2, True)
        for port in relay.ports:
            change(relay, f'"127.0.0.1:{port}"', '"127.0.0.1:0"')
        code, line = start(relay)
        assert (code, "audit.path" in line) == (2, True)
    finally:
        relay.stop()


@pytest.mark.parametrize("name", ["audit.jsonl", "relay-state.db"])
def test_a_file_that_is_no_log_or_state_is_one_line(relay: Relay, name: str) -> None:
    """Something else under that name is not overwritten."""
    (relay.folder / name).write_text("a letter to a friend\n" * 100)
    code, line = start(relay)
    assert (code, name in line) == (2, True)
    assert (relay.folder / name).read_text() == "a letter to a friend\n" * 100


@pytest.mark.parametrize(
    "content", ["", "garbage", "-----BEGIN PRIVATE KEY-----\ngarbage\n-----END PRIVATE KEY-----\n"]
)
def test_a_broken_key_file_is_one_line(relay: Relay, content: str) -> None:
    """It names the file and shows nothing of it."""
    [private] = [path for path in (relay.folder / "keys").iterdir() if "PRIVATE" in path.read_text()]
    private.write_text(content)
    code, line = start(relay)
    assert code == 2
    assert "keys" in line
    assert "garbage" not in line


def test_it_says_where_it_listens(relay: Relay) -> None:
    """Three lines once everything accepts connections, and a log of JSON lines on standard error."""
    relay.start()
    assert relay.process is not None
    for port in relay.ports:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert relay.stop() == 0
    assert '"event": "started"' in relay.log_path.read_text()
