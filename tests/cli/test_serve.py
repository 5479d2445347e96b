"""`relay serve`: what it says when it runs, and the one line when it can't."""

import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from relay.cli import main
from tests.support.relay_process import Relay, make_relay

Failing = Callable[[], str]


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    """A relay that is ready to be started."""
    return make_relay(tmp_path)


@pytest.fixture
def failing(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Failing]:
    """Start it in this process, in vain; gives the one line on standard error. The exit code is 2."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start() -> str:
        monkeypatch.setattr(sys, "argv", ["relay", "serve", "--config", str(relay.folder / "relay.toml")])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        [line] = err.splitlines()
        return line

    yield start
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def change(relay: Relay, old: str, new: str) -> None:
    """Change the settings file."""
    text = (relay.folder / "relay.toml").read_text()
    assert old in text
    (relay.folder / "relay.toml").write_text(text.replace(old, new))


@pytest.mark.parametrize("name", ["http", "stream", "internal"])
def test_a_port_in_use_is_one_line(relay: Relay, failing: Failing, name: str) -> None:
    """It names setting and port."""
    port = relay.ports[("http", "stream", "internal").index(name)]
    with socket.create_server(("127.0.0.1", port)):
        assert failing() == f"listen.{name}: can't listen on 127.0.0.1:{port}: Address already in use."


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1:8000", "can't listen on 192.0.2.1:8000: Cannot assign requested address."),
        ("no-such-host.invalid:8000", "can't listen on no-such-host.invalid:8000: "),
        ("a" * 70 + ".invalid:8000", "can't listen on"),
        ("[::1]:x", 'must be "host:port"'),
    ],
)
def test_an_address_that_is_not_ours_is_one_line(
    relay: Relay, failing: Failing, address: str, why: str
) -> None:
    """Another machine's address, an unknown name, a label that is too long."""
    change(relay, f'"127.0.0.1:{relay.ports[0]}"', f'"{address}"')
    line = failing()
    assert "listen.http: " in line
    assert why in line


@pytest.mark.parametrize("name", ["audit.jsonl", "relay-state.db"])
def test_a_file_that_is_no_log_or_state_is_one_line(relay: Relay, failing: Failing, name: str) -> None:
    """Something else under that name is not overwritten."""
    letter = "a letter to a friend\n" * 100
    (relay.folder / name).write_text(letter)
    assert name in failing()
    assert (relay.folder / name).read_text() == letter


@pytest.mark.parametrize(
    "content", ["", "garbage", "-----BEGIN PRIVATE KEY-----\ngarbage\n-----END PRIVATE KEY-----\n"]
)
def test_a_broken_key_file_is_one_line(relay: Relay, failing: Failing, content: str) -> None:
    """It names the file and shows nothing of it."""
    [private] = [path for path in (relay.folder / "keys").iterdir() if "PRIVATE" in path.read_text()]
    private.write_text(content)
    line = failing()
    assert "keys" in line
    assert "garbage" not in line


def test_it_says_where_it_listens_and_does_so_once(relay: Relay, failing: Failing) -> None:
    """Three lines once all accept connections; a second one finds the ports taken, or else the audit log."""
    relay.start()
    assert relay.process is not None
    for port in relay.ports:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert "listen.http: can't listen on" in failing()
    for port in relay.ports:
        change(relay, f'"127.0.0.1:{port}"', '"127.0.0.1:0"')
    assert "audit.path: " in failing()
    assert relay.stop() == 0
    assert '"event": "started"' in relay.log_path.read_text()


def test_the_process_prints_one_line_and_exits_with_2(relay: Relay) -> None:
    """As a process it does the same: one line, exit code 2, no traceback."""
    change(relay, "[public]", "[public")
    command = [sys.executable, "-m", "relay", "serve", "--config", str(relay.folder / "relay.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
