"""Fixtures: a certificate authority, and a relay whose three listeners speak TLS."""

import json
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.relay_process import Relay, make_relay


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority that nobody else knows."""
    return Authority(tmp_path)


@pytest.fixture
def ca(authority: Authority) -> ssl.SSLContext:
    """What a client needs to believe the authority."""
    return authority.client_context()


@pytest.fixture
def secure(tmp_path: Path, authority: Authority) -> Relay:
    """A relay whose three listeners speak TLS, not started yet."""
    ports = free_ports(3)
    relay = make_relay(tmp_path, ports=(ports[0], ports[1], ports[2]))
    pair = authority.issue("127.0.0.1", "localhost")
    files = json.dumps({"cert": str(pair.cert), "key": str(pair.key)})
    relay.environment |= {
        "RELAY_PUBLIC__URL": f"https://127.0.0.1:{ports[0]}",
        "RELAY_PUBLIC__STREAM_URL": f"wss://127.0.0.1:{ports[1]}",
        "RELAY_LISTEN__TLS": files,
        "RELAY_LISTEN__INTERNAL_TLS": files,
    }
    return relay
