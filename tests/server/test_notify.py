"""What a relay tells systemd (`Type=notify`): ready, reloading, stopping, and signs of life."""

import secrets
import signal
import socket
from pathlib import Path

import pytest

from relay.server.notify import notify
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


def test_an_abstract_socket_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's own may be one: its name begins with @."""
    name = f"relay-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1", "STATUS=x")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=x"
