"""Operators of a relay under test: their keys, and a call of the internal listener with one of them."""

import hashlib
import json
import subprocess
import sys
from typing import Any

import httpx

from tests.support.http_client import http_client
from tests.support.relay_process import Relay

SECRET = "test-operator-secret"
OPS = f"ops.{SECRET}"
READER = f"reader.{SECRET}-of-the-reader"
REVOKER = f"revoker.{SECRET}-of-the-revoker"


def _section(key: str, may: str) -> str:
    name, _, secret = key.partition(".")
    return f'[operators.{name}]\nsecret_sha256 = ["{hashlib.sha256(secret.encode()).hexdigest()}"]\nmay = {may}\n'


OPERATORS = (
    _section(OPS, '["read", "revoke", "reset"]')
    + _section(READER, '["read"]')
    + _section(REVOKER, '["revoke"]')
)
"""Settings for three operators: one may all, one may look, one may cut off."""


async def operate(
    relay: Relay, method: str, path: str, *, key: str = OPS, body: Any = None
) -> httpx.Response:
    """Call the internal listener with an operator's key."""
    async with http_client() as client:
        return await client.request(
            method, f"{relay.internal_url}{path}", headers={"Authorization": f"Bearer {key}"}, json=body
        )


async def revoke(relay: Relay, **what: Any) -> int:
    """Revoke and return how many connections were closed."""
    answer = await operate(relay, "POST", "/v1/revocations", body=what)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["connections"])


def by_command(relay: Relay, name: str) -> Any:
    """Return the story that `relay audit why` tells."""
    config = ["--config", str(relay.folder / "relay.toml"), "--json"]
    command = [sys.executable, "-m", "relay", "audit", "why", *config, "--", name]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
