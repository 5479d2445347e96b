"""What a relay tells systemd (`Type=notify`): ready, reloading, stopping, and signs of life."""

import secrets
import signal
import socket
from pathlib import Path

import pytest

from relay.server.notify import extension_s, notify
from tests.support.relay_process import make_relay


def test_a_relay_tells_systemd_how_it_is(tmp_path: Path) -> None:
    """READY when it accepts connections, RELOADING and READY around SIGHUP, STOPPING at SIGTERM, WATCHDOG in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(str(tmp_path / "notify"))
        relay = make_relay(tmp_path / "relay")
        relay.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        relay.start()

        def told(wanted: str) -> list[str]:
            """Return what came before a line, without the signs of life."""
            before: list[str] = []
            while (line := systemd.recv(1000).decode().partition("\n")[0]) != wanted:
                if line != "WATCHDOG=1":
                    before.append(line)
            return before

        assert told("READY=1") == []
        assert told("WATCHDOG=1") == []
        assert relay.process is not None
        relay.process.send_signal(signal.SIGHUP)
        assert told("RELOADING=1") == []
        assert told("READY=1") == []
        assert relay.stop() == 0
        assert told("STOPPING=1") == []


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["STOPPING=1", "EXTEND_TIMEOUT_USEC=14800000"], 14.8),
        (["EXTEND_TIMEOUT_USEC=1000000", "EXTEND_TIMEOUT_USEC=2000000"], 2.0),
        (["STOPPING=1"], None),
        (["EXTEND_TIMEOUT_USEC="], None),
        (["EXTEND_TIMEOUT_USEC=-1"], None),
    ],
)
def test_a_worker_asks_for_the_time_of_its_drain(lines: list[str], seconds: float | None) -> None:
    """Its supervisor kills it that much later; a line that has no number asks for nothing."""
    assert extension_s(lines) == seconds


def test_an_abstract_socket_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's own may be one: its name begins with @."""
    name = f"relay-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1", "STATUS=x")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=x"
